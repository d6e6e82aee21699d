"""A webhook without modhost: Flask verifies an event with the official SDK and stores nothing."""

import os

import unique_sdk
from flask import Flask, jsonify, request

app = Flask(__name__)
SECRET = os.environ["BENCH_SECRET"]


@app.post("/webhook")
def webhook():
    signature = request.headers.get("X-Unique-Signature")
    timestamp = request.headers.get("X-Unique-Created-At")
    unique_sdk.Webhook.construct_event(request.data, signature, timestamp, SECRET)
    return jsonify(success=True)
