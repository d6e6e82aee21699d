"""Tests with Python implementations of the signature schemes; see README.md."""

import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import pytest
import requests
import standardwebhooks
import stripe
import svix.webhooks
import unique_sdk
from slack_sdk.signature import SignatureVerifier

from vectors import cases, load

BODIES = {
    "unique": '{"id":"evt_1","event":"e","payload":{}}',
    "standard-webhooks": '{"type":"contact.created","data":{"name":"Zoë"}}',
    "stripe": '{"id":"evt_1","object":"event","type":"invoice.paid","data":{"object":{"name":"Zoë"}}}',
    "slack": '{"type":"event_callback","event_id":"Ev1","event":{"type":"message","text":"Zoë"}}',
}


def unique(request, secret):
    headers = lower(request)
    unique_sdk.Webhook.construct_event(
        request["body"].encode(), headers.get("x-unique-signature"), headers.get("x-unique-created-at"), secret
    )


def standard(request, secret):
    standardwebhooks.Webhook(secret).verify(request["body"].encode(), request["headers"])


def svixs(request, secret):
    svix.webhooks.Webhook(secret).verify(request["body"].encode(), request["headers"])


def stripes(request, secret):
    stripe.WebhookSignature.verify_header(request["body"], lower(request).get("stripe-signature"), secret, 300)


def slack(request, secret):
    assert SignatureVerifier(secret).is_valid_request(request["body"].encode(), request["headers"])


LIBRARIES = [
    ("unique", unique),
    ("standard-webhooks", standard),
    ("standard-webhooks", svixs),
    ("stripe", stripes),
    ("slack", slack),
]


def lower(request):
    return {name.lower(): value for name, value in request["headers"].items()}


def accepts(library, request):
    """Returns whether a library accepts a request with one of the secrets that it supports."""
    for secret in request["secrets"]:
        if secret.startswith("whpk_"):
            continue
        try:
            library(request, secret)
            return True
        except Exception:  # every library has its own types, and some fail to parse bad input
            continue
    return False


@pytest.fixture
def clock(monkeypatch):
    """Sets the current time for the libraries."""

    def set_to(now):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.fromtimestamp(now, tz)

        monkeypatch.setattr(time, "time", lambda: float(now))
        monkeypatch.setattr("slack_sdk.signature.time", lambda: float(now))
        monkeypatch.setattr("standardwebhooks.webhooks.datetime", Clock)

    return set_to


@pytest.mark.parametrize(("scheme", "library"), LIBRARIES)
def test_vectors(scheme, library, clock):
    differing = []
    for request in cases(scheme):
        clock(request["now"])
        right = request["right"] or (library is svixs and request["right_for_svix"])
        if accepts(library, request) != right:
            differing.append((request["name"], "should be", "accepted" if right else "refused"))
    assert differing == []


@pytest.mark.parametrize(("scheme", "library"), LIBRARIES)
def test_accepts_requests_signed_by_modhost(scheme, library):
    signed = json.loads(Path(os.environ["MODHOST_SIGNED"]).read_text())
    requests_of = [request for request in signed if request["scheme"] == scheme]
    assert requests_of
    for request in requests_of:
        assert accepts(library, request), request
        assert not accepts(library, {**request, "body": request["body"] + " "}), "the library accepts a changed body"


def post(scheme, headers):
    body = BODIES[scheme].encode()
    url = f"{os.environ['MODHOST_URL']}/{scheme}"
    accepted = requests.post(url, data=body, headers=headers, timeout=60)
    assert accepted.status_code == 200, accepted.text
    changed = requests.post(url, data=body + b" ", headers=headers, timeout=60)
    assert changed.status_code in (400, 401), changed.text


def secret(scheme):
    return next(iter(load(scheme)["secrets"].values()))


@pytest.mark.parametrize(
    ("library", "prefix"), [(standardwebhooks.Webhook, "webhook"), (svix.webhooks.Webhook, "svix")]
)
def test_modhost_accepts_standard_webhooks(library, prefix):
    now, message = datetime.now(tz=timezone.utc), f"msg_{uuid4().hex}"
    signature = library(secret("standard-webhooks")).sign(message, now, BODIES["standard-webhooks"])
    time_of = str(int(now.timestamp()))
    post(
        "standard-webhooks",
        {f"{prefix}-id": message, f"{prefix}-timestamp": time_of, f"{prefix}-signature": signature},
    )


def test_modhost_accepts_stripe():
    signature = stripe.WebhookSignature.generate_signature_header(
        payload=BODIES["stripe"], secret=secret("stripe"), timestamp=int(time.time())
    )
    post("stripe", {"Stripe-Signature": signature})


def test_modhost_accepts_slack():
    now = str(int(time.time()))
    signature = SignatureVerifier(secret("slack")).generate_signature(timestamp=now, body=BODIES["slack"])
    post("slack", {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": now})
