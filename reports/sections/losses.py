"""Healthy clients that lost their connections: how many, how often, by whom; and those that were not shown online."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reports.gallery import Gallery
from reports.numbers import ABSENT, caption_seconds, cause_name, count, rate, share, words
from reports.page import Block, Cell, Section, Text
from reports.run_tables import RunTables
from reports.sections.cells import Row, count_cell, engine_cell, missing, rate_cell, share_cell, table_of

__all__ = ["losses_section", "losses_sentences"]

_TITLE = "Healthy clients that lost their connection"


def losses_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the section: losses by author and engine, their causes, and the gaps of presence."""
    found = tables.table("losses")
    if found.empty:
        return missing("losses", _TITLE, "Losses of healthy clients are not known (no losses.csv).")
    blocks: list[Block] = [
        *gallery.get("losses", []),
        table_of(
            found,
            {
                "engine": ("engine", engine_cell),
                "ended by": ("author", lambda author: Cell(words(author) if author else "all")),
                "healthy clients": ("healthy_clients", count_cell),
                "connections lost": (
                    "connections",
                    lambda n: count_cell(n) if n == round(n) else rate_cell(n),
                ),
                "clients": ("clients", _if_known),
                "sessions lost": ("sessions", _if_known),
                "per client-day": _rate,
                "offline, of the time": ("offline_share", share_cell),
            },
            note="A loss is an end that the client did not want: by the gateway’s own verdict, by the middle of the "
            "path, by the client’s own idle limit, with its node, for a newer connection, in a drain. Clients that a "
            "fault only hampers are healthy ones. The interval is the exact 95 % one of a Poisson rate (Garwood 1936); "
            "theory’s connections are the expected number, of the authors that it predicts.",
            csv="losses.csv",
        ),
    ]
    lost = tables.table("healthy_connections")
    lost = lost[lost["outcome"] == "lost"]
    if len(lost):
        causes = (
            lost.assign(offline=lost["offline_s"])
            .groupby(["engine", "author", "cause", "incident", "hampered_by"], sort=False)
            .agg(count=("client", "size"), clients=("client", "nunique"), median_s=("watched_s", "median"))
            .reset_index()
            .sort_values(["engine", "count"], ascending=[True, False], kind="stable")
        )
        blocks.append(
            table_of(
                causes,
                {
                    "engine": ("engine", engine_cell),
                    "ended by": ("author", lambda author: Cell(words(author))),
                    "cause": ("cause", lambda cause: Cell(cause_name(cause))),
                    **{
                        words(name): (name, Cell)
                        for name in ("incident", "hampered_by")
                        if causes[name].any()
                    },
                    "connections": ("count", count_cell),
                    "clients": ("clients", count_cell),
                    "held for, median (s)": ("median_s", rate_cell),
                },
                title="Why",
                csv="healthy_connections.csv",
                folded=len(causes) > _MOST_CAUSES,
            )
        )
    return Section("losses", _TITLE, [*blocks, *_gaps(tables)])


_MOST_CAUSES = 12


def losses_sentences(tables: RunTables, engine: str) -> Iterator[str]:
    """Say in a sentence what an engine lost, and in another whom the store did not show."""
    found = tables.table("losses")
    for row in found[(found["engine"] == engine) & (found["author"] == "")].to_dict("records"):
        healthy = count(row["healthy_clients"])
        lost = (
            f"{count(row['clients'])} of {healthy}, {count(row['connections'])} times, {count(row['sessions'])} "
            f"sessions with them; offline for {share(row['offline_share'])} of the time"
            if row["connections"]
            else f"none of {healthy}"
        )
        bound = f"at most {rate(row['rate_hi'])} losses a client-day (95 %)"
        yield f"Healthy clients that lost their connection: {lost}; {bound}."
    gaps = tables.table("presence_gaps")
    gaps = gaps[gaps["engine"] == engine]
    if len(gaps):
        yield (
            f"Gaps of presence: {count(gaps['client'].nunique())} clients were connected and not shown online, for "
            f"{caption_seconds(gaps['lasts_s'].sum())} together."
        )


def _gaps(tables: RunTables) -> Iterator[Block]:
    looked = tables.table("population")
    if looked["store_sessions"].isna().all():
        yield Text("Whether the store showed them online is not known: nobody looked.", "missing")
        return
    gaps = tables.table("presence_gaps")
    if gaps.empty:
        yield Text("Presence: at every look the store showed every healthy client that was connected.")
        return
    found = (
        gaps.groupby("engine", sort=False)
        .agg(
            count=("client", "size"),
            clients=("client", "nunique"),
            after_s=("after_s", "median"),
            total_s=("lasts_s", "sum"),
            longest_s=("lasts_s", "max"),
        )
        .reset_index()
    )
    yield table_of(
        found,
        {
            "engine": ("engine", engine_cell),
            "gaps": ("count", count_cell),
            "clients": ("clients", count_cell),
            "after the connect, median (s)": ("after_s", rate_cell),
            "client-seconds": ("total_s", rate_cell),
            "longest (s)": ("longest_s", rate_cell),
        },
        title="Presence: connected, and not shown online",
        note="From the store watch’s first look that found no status record to the first that found it again.",
        csv="presence_gaps.csv",
    )


def _if_known(value: float) -> Cell:
    return count_cell(value) if value == value else Cell(ABSENT)


def _rate(row: Row) -> Cell:
    value = rate_cell(row["rate_per_client_day"])
    known = row["rate_hi"] == row["rate_hi"]
    return replace(value, detail=f"{rate(row['rate_lo'])} to {rate(row['rate_hi'])}") if known else value
