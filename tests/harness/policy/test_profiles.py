"""The built-in profiles: numbers that follow from their parameters, laws that can be drawn, names that exist."""

from __future__ import annotations

import numpy as np
import pytest

from harness.policy.profiles import (
    HeartbeatProfile,
    NetworkProfile,
    Status,
    UnknownProfileError,
    heartbeat_profile,
    idle_timer_profile,
    load_profiles,
    network_profile,
)
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.schema import Scenario

PROFILES = load_profiles()
UNDERIVABLE = {"discord", "granian", "wechat"}


def by_name(profile: HeartbeatProfile | NetworkProfile) -> str:
    return profile.name


@pytest.mark.parametrize("profile", PROFILES.heartbeats, ids=by_name)
def test_the_stated_range_follows_from_the_parameters(profile: HeartbeatProfile) -> None:
    law = profile.law
    if profile.name in UNDERIVABLE:
        assert law is None and profile.claimed is None
        return
    assert law is not None and profile.claimed is not None
    stated = (profile.claimed.lo, profile.claimed.hi, profile.claimed.mean)
    assert (law.lo_s, law.hi_s, law.mean_s) == pytest.approx(stated, abs=1e-6)


# The published numbers, written out here: a wrong digit in the file and in the law would agree.
@pytest.mark.parametrize(
    ("name", "lo_s", "hi_s", "mean_s"),
    [
        ("engineio", 20, 45, 32.5),
        ("python-engineio", 20, 45, 32.5),
        ("python-engineio-polling", 20, 65, 42.5),
        ("phoenix", 30, 60, 45),
        ("signalr", 15, 30, 22.5),
        ("centrifugo", 8, 33, 20.5),
        ("websockets", 30, 50, 40),
        ("uvicorn", 20, 40, 30),
        ("aiohttp", 15, 45, 30),
        ("gorilla", 6, 60, 33),
        ("node-ws", 30, 60, 45),
        ("mqtt", 30, 90, 60),
        ("mosquitto", 30, 98, 64),
        ("rabbitmq", 90, 180, 135),
        ("rabbitmq-mqtt", 60, 180, 120),
        ("bun", 16, 120, 68),
        ("deno", 15, 30, 22.5),
        ("graphql-ws", 12, 24, 18),
        ("daphne", 29, 52, 40.5),
        ("channels-redis", 29, 52, 40.5),
        ("hypercorn", 924.6, 944.6, 934.6),
        ("ejabberd", 60, 120, 90),
        ("prosody", 924.6, 1764.6, 1344.6),
        ("actioncable", 924.6, 927.6, 926.1),
    ],
)
def test_the_published_numbers(name: str, lo_s: float, hi_s: float, mean_s: float) -> None:
    law = heartbeat_profile(name).law
    assert law is not None
    assert (law.lo_s, law.hi_s, law.mean_s) == pytest.approx((lo_s, hi_s, mean_s), abs=1e-6)


def test_every_heartbeat_is_either_published_above_or_underivable() -> None:
    assert {p.name for p in PROFILES.heartbeats if p.law is None} == UNDERIVABLE


@pytest.mark.parametrize(
    ("name", "idle_s", "lifetime_s", "expiry"),
    [
        ("aws-alb", 60, None, "close"),
        ("aws-nlb", 350, None, "reset"),
        ("aws-nat-gateway", 350, None, "reset"),
        ("aws-api-gateway", 600, 7200, "close"),
        ("gcp-http-lb", None, 30, "close"),
        ("gcp-cloud-nat", 1200, None, "drop"),
        ("azure-lb", 240, None, "drop"),
        ("nginx", 60, None, "close"),
        ("envoy-http", 300, None, "reset"),
        ("envoy-tcp", 3600, None, "close"),
        ("cloudflare", 100, None, "close"),
        ("haproxy", 50, None, "close"),
        ("heroku", 55, None, "close"),
        ("traefik", 180, None, "close"),
        ("apache", 60, None, "close"),
        ("caddy", None, None, "close"),
        ("aws-cloudfront", 600, None, "close"),
        ("openshift-router", 30, None, "close"),
        ("linux-conntrack", 432000, None, "drop"),
        ("rfc5382", 7440, None, "drop"),
        ("cellular-carrier", 255, None, "reset"),
        ("cgn-cellular-udp", 65, None, "drop"),
        ("cgn-fixed-udp", 35, None, "drop"),
    ],
)
def test_the_idle_timers(name: str, idle_s: float, lifetime_s: float | None, expiry: str) -> None:
    timer = idle_timer_profile(name)
    assert (timer.idle_timeout, timer.lifetime, timer.expiry) == (idle_s, lifetime_s, expiry)


def test_the_socket_of_a_suspect_may_end_apart_from_the_applications_notice() -> None:
    lags = {p.name: p.socket_lag for p in PROFILES.heartbeats if p.socket_lag}
    assert lags == {"engineio": 30.0, "python-engineio": 10.0, "websockets": -10.0}
    assert heartbeat_profile("channels-redis").record_ttl == 86400.0
    assert "never" in heartbeat_profile("granian").row[2]


def test_what_is_configurable_contains_its_default() -> None:
    ranges = [p for p in PROFILES.idle_timers if p.configurable is not None]
    assert ranges
    for timer in ranges:
        assert timer.configurable is not None and timer.idle_timeout is not None
        assert timer.configurable.low <= timer.idle_timeout <= timer.configurable.high


def test_names_are_unique_and_rows_are_whole() -> None:
    names = [profile.name for profile in PROFILES.all]
    assert len(set(names)) == len(names)
    for profile in PROFILES.all:
        assert all(profile.row), profile.row
        assert profile.status


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownProfileError, match=r"no heartbeat profile 'nginx'.*; allowed: engineio, "):
        heartbeat_profile("nginx")
    with pytest.raises(UnknownProfileError, match="office-wifi-60s-lb"):
        network_profile("moon")
    with pytest.raises(UnknownProfileError, match=r"did you mean aws-alb\?"):
        idle_timer_profile("alb")
    assert network_profile("mobile").name == "cellular-4min-nat"


def test_the_four_networks_are_assumptions() -> None:
    assert [p.name for p in PROFILES.networks] == [
        "office-wifi-60s-lb",
        "cellular-4min-nat",
        "data-centre",
        "home-nat",
    ]
    for profile in PROFILES.networks:
        assert profile.status == (Status.ASSUMED,)


@pytest.mark.parametrize("profile", PROFILES.networks, ids=by_name)
def test_a_network_fits_a_scenario_and_its_middleboxes_exist(profile: NetworkProfile) -> None:
    scenario = Scenario(name="tuned", duration=60.0, network=profile.network, liveness=LivenessPolicy())
    assert scenario.network.outages == profile.outages
    drawn_s = profile.round_trip.sample(np.random.default_rng(1), 1000)
    assert np.all(drawn_s > 0)
    for name in profile.middleboxes:
        assert idle_timer_profile(name).transport == "tcp"


@pytest.mark.parametrize(
    ("name", "p99_s"),
    [("office-wifi-60s-lb", 0.08), ("cellular-4min-nat", 0.4), ("data-centre", 0.0013), ("home-nat", 0.12)],
)
def test_one_round_trip_in_a_hundred_is_as_long_as_the_assumption_says(name: str, p99_s: float) -> None:
    assert float(network_profile(name).round_trip.quantile(0.99)) == pytest.approx(p99_s, rel=0.05)
