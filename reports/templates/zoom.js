// A figure zooms by the wheel with Ctrl (also a pinch of the touchpad) and by + and −, and moves by dragging.
// Its SVG is drawn anew at each size, so lines and letters stay sharp.
for (const image of document.querySelectorAll("figure img")) {
  const view = document.createElement("div");
  view.className = "zoom";
  view.tabIndex = 0;
  image.replaceWith(view);
  view.append(image);
  let scale = 1, left = 0, top = 0, held = null;
  const show = () => {
    const { width, height } = view.getBoundingClientRect();
    left = Math.min(0, Math.max(left, width * (1 - scale)));
    top = Math.min(0, Math.max(top, height * (1 - scale)));
    image.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
    view.style.touchAction = scale > 1 ? "none" : "auto";
    view.style.cursor = scale > 1 ? "grab" : "auto";
  };
  const zoom = (factor, x, y) => {
    const next = Math.min(16, Math.max(1, scale * factor)), grown = next / scale;
    [left, top, scale] = [x - (x - left) * grown, y - (y - top) * grown, next];
    show();
  };
  const at = (event) => {
    const box = view.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...at(event));
  }, { passive: false });
  view.addEventListener("pointerdown", (event) => {
    if (scale === 1) return;
    held = [event.clientX - left, event.clientY - top];
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    if (!held) return;
    [left, top] = [event.clientX - held[0], event.clientY - held[1]];
    show();
  });
  for (const name of ["pointerup", "pointercancel"]) view.addEventListener(name, () => { held = null; });
  view.addEventListener("dragstart", (event) => event.preventDefault());
  view.addEventListener("dblclick", (event) => (scale > 1 ? zoom(1 / scale, 0, 0) : zoom(3, ...at(event))));
  view.addEventListener("keydown", (event) => {
    const factor = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, "0": 1 / scale }[event.key];
    const { width, height } = view.getBoundingClientRect();
    if (factor && !event.ctrlKey) zoom(factor, width / 2, height / 2);
  });
}
