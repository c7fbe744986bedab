// A client of the gateway in a page: logs in, keeps one WebSocket, answers heartbeats, comes back by itself.
//
// The session lives in localStorage: a reload and a later visit find it again, and so does another tab, which takes the
// connection over. Whoever is told that it is over (4401) forgets it.
// Heartbeats are answered when they come: no timer of the page takes part, so throttled timers of a
// hidden tab do no harm.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const LINES = 200;
const SESSION_UNKNOWN = 4401;
const WRONG_USER = 4403;
const TAKEN_OVER = 4409;
const KICKED = 4410;

const $ = (id) => document.getElementById(id);
const peers = new Map(); // user id → "online", "offline" or "not known yet"
let session = read(); // {session_id, user_id} or null
let socket = null;
let timer = 0; // of the next try
let tries = 0; // since the last success
let beats = 0;
let port = 0;

function read() {
  try {
    return JSON.parse(localStorage.getItem("session"));
  } catch {
    return null;
  }
}

function keep(value) {
  session = value;
  if (value) localStorage.setItem("session", JSON.stringify(value));
  else localStorage.removeItem("session");
}

function log(text) {
  const line = document.createElement("li");
  line.textContent = `${new Date().toLocaleTimeString()} ${text}`;
  $("log").append(line);
  if ($("log").children.length > LINES) $("log").firstElementChild.remove();
  line.scrollIntoView({ block: "nearest" });
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
  $("login").hidden = session !== null;
  $("session").hidden = session === null;
  $("again").hidden = state !== "elsewhere";
  $("who").textContent = session ? session.user_id : "";
}

function showPeers() {
  $("peers").replaceChildren(...[...peers].map(([user, state]) => {
    const item = document.createElement("li");
    item.textContent = `${user}: ${state}`;
    return item;
  }));
}

async function call(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error.message);
  return value;
}

// -- the connection ------------------------------------------------------------------------------

function connect() {
  clearTimeout(timer);
  if (!session || socket) return;
  show("connecting", "Connecting");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = (socket = new WebSocket(`${scheme}://${location.hostname}:${port}/ws`));
  const { token, user_id } = session;
  mine.onopen = () => mine.send(JSON.stringify({ type: "auth", token, user_id }));
  mine.onmessage = (event) => {
    if (socket === mine) onMessage(JSON.parse(event.data));
  };
  mine.onclose = (event) => {
    if (socket !== mine) return;
    socket = null;
    onClosed(event.code, event.reason);
  };
}

function onMessage(message) {
  switch (message.type) {
    case "heartbeat":
      socket.send('{"type":"pong"}');
      $("beats").textContent = String(++beats);
      break;
    case "ready":
      tries = 0;
      show("online", "Online");
      log(message.resumed ? "resumed" : "connected");
      if (peers.size) watch([...peers.keys()]);
      break;
    case "online":
    case "offline":
      peers.set(message.user_id, message.type);
      showPeers();
      log(`${message.user_id} is ${message.type}`);
      break;
    case "watching":
      log(`watching ${message.count} of the users`);
      break;
    case "error":
      log(`${message.code}: ${message.message}`);
      break;
  }
}

function onClosed(code, reason) {
  log(`closed: ${code} ${reason}`);
  if (code === SESSION_UNKNOWN || code === WRONG_USER) {
    leave("The session has ended. Log in again.");
  } else if (code === TAKEN_OVER) {
    show("elsewhere", "Used in another place"); // to come back by itself would end that one
  } else if (code === 1000) {
    leave("Logged out.");
  } else if (code === KICKED) {
    leave("Somebody ended this session.");
  } else {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** tries++);
    const wait = Math.random() * longest; // full jitter: a thousand clients do not come back at once
    show("waiting", `No connection; trying again in ${(wait / 1000).toFixed(1)} s`);
    timer = setTimeout(connect, wait);
  }
}

function leave(why) {
  keep(null);
  peers.clear();
  showPeers();
  show("out", "Logged out");
  $("refusal").textContent = why;
  $("user").focus();
}

function watch(users) {
  if ($("state").dataset.state !== "online") return; // all are watched when it is, see "ready"
  socket.send(JSON.stringify({ type: "watch", user_ids: users }));
}

/** Close without waiting and without coming back by itself. */
function hangUp() {
  clearTimeout(timer);
  const mine = socket;
  socket = null;
  mine?.close(1000, "page hidden");
}

// -- the page ------------------------------------------------------------------------------------

$("login").onsubmit = async (event) => {
  event.preventDefault();
  $("refusal").textContent = "";
  const body = { user_id: $("user").value };
  if ($("code").value) body.code = $("code").value;
  try {
    keep(await call("POST", "/user/login", body));
    $("code").value = "";
    tries = 0;
    connect();
  } catch (error) {
    $("refusal").textContent = error.message;
  }
};

$("ask").onclick = async () => {
  $("refusal").textContent = "";
  if (!$("user").reportValidity()) return;
  try {
    const { code, expires_in_s } = await call("POST", "/user/code", { user_id: $("user").value });
    $("code").value = code;
    log(`the code is good for ${expires_in_s} s; for want of mail it is filled in here`);
  } catch (error) {
    $("refusal").textContent = error.message;
  }
};

$("logout").onclick = async () => {
  hangUp();
  try {
    await call("POST", "/user/logout", session);
  } catch (error) {
    log(`logging out: ${error.message}`);
  }
  leave("Logged out.");
};

$("again").onclick = connect;

$("watch").onsubmit = (event) => {
  event.preventDefault();
  peers.set($("peer").value, "not known yet");
  showPeers();
  watch([$("peer").value]);
  $("peer").value = "";
};

addEventListener("pagehide", hangUp);
addEventListener("beforeunload", () => {
  hangUp();
  timer = setTimeout(connect, 1000); // for who stays after all; with the page the timer goes, too
});
addEventListener("storage", (event) => {
  if (event.key === "session" && !event.newValue && session) {
    hangUp();
    leave("Logged out in another tab.");
  }
});
addEventListener("offline", () => log("this device is offline"));
addEventListener("pageshow", (event) => {
  if (event.persisted) connect(); // back from the back-forward cache
});
addEventListener("online", () => {
  log("this device is online");
  if ($("state").dataset.state === "waiting") connect();
});
addEventListener("visibilitychange", () => {
  if (!document.hidden && $("state").dataset.state === "waiting") connect();
});

try {
  const config = await call("GET", "/api/config");
  port = config.websocket_port;
  $("code").required = config.require_code;
  if (config.require_code) $("code-needed").textContent = "(needed)";
  show("out", "Logged out");
  connect();
} catch {
  show("out", "The gateway does not answer. Reload the page.");
}
