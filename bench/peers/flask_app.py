"""Flask for gunicorn's threads, one commit a request."""

import threading

from flask import Flask, Response, request

from bench.peers import notification

app = Flask(__name__)
local = threading.local()


@app.post("/notify/<merchant_no>/<store_no>")
def notify(merchant_no: str, store_no: str) -> Response:
    form = request.form.to_dict()
    if not notification.verifies(form, notification.token_digest()):
        return Response("fail", 401, mimetype="text/plain")
    if not hasattr(local, "db"):
        local.db = notification.connect()
    local.db.execute(notification.INSERT, notification.row(form, merchant_no, store_no))
    return Response("success", mimetype="text/plain")
