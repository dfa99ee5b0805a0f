"""Serve the chat page of one run: load its models, bind to this machine, print one link, run uvicorn.

Only on loopback: the models answer one question at a time, and whoever may ask them may use this machine's cores.
"""

from rlhf_lab.chat_models import STAGES, finished_run, load_models
from rlhf_lab.chat_page.answers import Models
from rlhf_lab.chat_page.app import create_app
from rlhf_lab.chat_page.measures import load_judges
from rlhf_lab.rating.address import Address, allowed_hosts
from rlhf_lab.rating.server import bind, run_on
from rlhf_lab.rating.sessions import Sessions
from rlhf_lab.rating.store import Store, votes_path


def serve_chat(run: str, *, rater: str, temperature: float, port: int) -> None:
    """Serve until Ctrl-C; every vote is on disk when the page says so. Raises UserError for a run without models, a
    port that is taken and votes that can not be written."""
    folder = finished_run(run)
    address = Address(port=port)
    listener = bind(address)
    store = Store(votes_path(folder))
    number = store.rater(rater)
    models = load_models(folder, tuple(STAGES))
    judges = load_judges(models)
    for name, why in (models.missing | judges.missing).items():
        print(f"without the {name}: {why}")
    sessions = Sessions(store)
    port = listener.getsockname()[1]
    hosts = allowed_hosts(address, port)
    app = create_app(
        Models(models, judges),
        store,
        sessions,
        temperature=temperature,
        allowed_hosts=hosts,
        cookie_name=f"rlhf_lab_chat_{port}",
    )
    print(f"votes go to {store.path}")
    print(f"  {rater}: http://{hosts[0]}/enter?token={sessions.invite(number, is_owner=True)}")
    print("The link works once, in the browser that opens it first. Ctrl-C ends.", flush=True)
    run_on(listener, app)
    if votes := store.votes():
        print(f"{len(votes)} votes in {store.path}; to train on them, type: rlhf-lab rate {folder} --new-run NAME")
