"""The app: three read-only pages, with the access checks of `security.py`."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from airflow_provider_lakets.plugin import pages
from airflow_provider_lakets.plugin.html import FOLDER, render
from airflow_provider_lakets.plugin.page_request import PageRequest
from airflow_provider_lakets.plugin.security import (
    MAY_SEE_PLUGINS,
    SafeHeaders,
    chosen,
    dags_by_connection,
)
from airflow_provider_lakets.plugin.snapshots import Snapshots, warm_up

if TYPE_CHECKING:
    from starlette.responses import Response

log = logging.getLogger(__name__)

_ALLOWED = Depends(dags_by_connection)


def _page_request(request: Request, allowed: dict[str, list[str]]) -> PageRequest:
    base = str(request.scope.get("root_path", "")).rstrip("/")
    given = request.query_params
    return PageRequest(
        base=base,
        airflow=base.rpartition("/")[0] + "/",
        allowed=allowed,
        conn=chosen(allowed, given.get("conn")),
        wake=given.get("look") == "now",
        now=datetime.now(timezone.utc),
    )


def create_app() -> FastAPI:
    """Make the app."""
    app = FastAPI(
        title="LakeTS",
        dependencies=[MAY_SEE_PLUGINS],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    snapshots = Snapshots()
    app.add_middleware(SafeHeaders)
    # Style and script need no access check: the page for users who must log in uses them, too.
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")

    @app.get("/", response_class=HTMLResponse)
    def overview(request: Request, allowed: Any = _ALLOWED) -> str:
        page_request = _page_request(request, allowed)
        if page_request.conn is None:
            return render("nothing.html", request=page_request, base=page_request.base, title="LakeTS")
        known = snapshots.look(page_request.conn, wake=page_request.wake)
        return render("overview.html", **pages.overview(page_request, known, request.query_params))

    @app.get("/table", response_class=HTMLResponse)
    def table(request: Request, allowed: Any = _ALLOWED) -> str:
        page_request = _page_request(request, allowed)
        name = _required(request, "name")
        return render("table.html", **pages.table(page_request, snapshots, name, request.query_params))

    @app.get("/rollup", response_class=HTMLResponse)
    def rollup(request: Request, allowed: Any = _ALLOWED) -> str:
        page_request = _page_request(request, allowed)
        return render("rollup.html", **pages.rollup(page_request, snapshots, _required(request, "name")))

    app.add_exception_handler(StarletteHTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    warm_up()
    return app


def _required(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise HTTPException(404, f"The address lacks {name}=...")
    return value


_MESSAGES = {
    401: ("Log in to Airflow", "Your session has ended, or you have not logged in."),
    403: ("No access", "You lack the right to see plugins. An administrator of Airflow can grant it."),
}


def _refused(request: Request, error: Exception) -> Response:
    """Return an error as a page, because users cannot read JSON in a frame."""
    err = cast("StarletteHTTPException", error)  # it is registered for these
    otherwise = "Not found" if err.status_code == 404 else "Refused"
    title, text = _MESSAGES.get(err.status_code, (otherwise, str(err.detail)))
    return HTMLResponse(_message(request, title, text, err.status_code), err.status_code, headers=err.headers)


def _failed(request: Request, err: Exception) -> Response:
    log.error("The LakeTS page failed", exc_info=err)
    text = "The page could not be made. The log of Airflow's API server says why."
    return HTMLResponse(_message(request, "Something went wrong", text, 500), 500)


def _message(request: Request, title: str, text: str, status: int) -> str:
    base = str(request.scope.get("root_path", "")).rstrip("/")
    airflow = base.rpartition("/")[0] + "/"
    return render("message.html", title=title, text=text, status=status, base=base, airflow=airflow)
