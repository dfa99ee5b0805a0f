"""The rating page in a real Chromium, driven by the keyboard as a rater would.

    apt-get install chromium chromium-driver && pip install selenium       (else these tests are skipped)

Other binaries, and a folder for pictures: see tests/browser.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.pairs import make_pair
from tests.browser import Look, needs_browser, open_browser
from tests.rating.desk import Plan, Served, desk, served, some_gold, vote_good

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("selenium", reason="to test the page in a browser: pip install selenium")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = needs_browser
SHOWN = (By.ID, "work")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Served]:
    with served(desk(tmp_path, 30)) as running:
        yield running


def until(browser: Any, condition: Callable[[Any], Any]) -> Any:
    return WebDriverWait(browser, 20, poll_frequency=0.05).until(condition)


def ready(browser: Any) -> str:
    """Wait until keys count; returns the id of the presentation that is shown."""
    until(browser, lambda b: b.find_element(*SHOWN).get_attribute("data-ready") == "true")
    return str(browser.find_element(*SHOWN).get_attribute("data-presentation"))


def enter(browser: Any, page: Served, rater: str = "ann", *, is_owner: bool = False) -> str:
    browser.get(page.link(rater, is_owner=is_owner))
    until(browser, lambda b: b.find_elements(*SHOWN))
    return ready(browser)


def press(browser: Any, keys: str, *, shift: bool = False) -> None:
    chain = ActionChains(browser)
    (chain.key_down(Keys.SHIFT).send_keys(keys).key_up(Keys.SHIFT) if shift else chain.send_keys(keys)).perform()


def pressed(browser: Any, keys: str, *, shift: bool = False) -> str:
    """Press, and wait for the next pair (or the end); returns its id."""
    before = ready(browser)
    press(browser, keys, shift=shift)
    until(
        browser,
        lambda b: (
            b.find_element(*SHOWN).get_attribute("data-presentation") != before
            or b.find_element(By.ID, "done").is_displayed()
        ),
    )
    return ready(browser)


def text_of(browser: Any, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def test_twenty_pairs_by_keyboard_alone(browser: Any, tmp_path: Path) -> None:
    with served(desk(tmp_path, 20)) as page:
        enter(browser, page)
        keys = [("1", False), ("2", False), ("1", True), ("2", True), ("0", False), ("b", False)]
        for number in range(20):
            key, shift = keys[number % len(keys)]
            pressed(browser, key, shift=shift)
        assert browser.find_element(By.ID, "done").is_displayed()
        found = [(vote.outcome, vote.strength) for vote in page.store.votes()]
    expected = [("left", "slightly"), ("right", "slightly"), ("left", "clearly"), ("right", "clearly")]
    expected += [("tie", None), ("both_bad", None)]
    assert found == [expected[number % 6] for number in range(20)]
    assert all(vote.seconds is not None and vote.seconds >= 0 for vote in page.store.votes())


def test_what_is_on_the_left_is_what_a_left_vote_prefers(browser: Any, page: Served) -> None:
    enter(browser, page)
    lefts = []
    for _ in range(6):
        lefts.append(text_of(browser, "left"))
        pressed(browser, "1")
    pairs = page.store.pairs()
    assert [getattr(pairs[vote.pair], vote.preferred or "") for vote in page.store.votes()] == lefts


def test_a_refresh_midway_shows_the_same_pair_and_loses_nothing(browser: Any, page: Served) -> None:
    enter(browser, page)
    for _ in range(3):
        shown = pressed(browser, "1")
    texts = text_of(browser, "left"), text_of(browser, "right")
    browser.refresh()
    assert ready(browser) == shown
    assert (text_of(browser, "left"), text_of(browser, "right")) == texts
    assert text_of(browser, "progress-text").startswith("3 of 30")
    pressed(browser, "2")
    assert len(page.store.votes()) == 4


def test_a_double_press_counts_once(browser: Any, page: Served) -> None:
    enter(browser, page)
    pressed(browser, "11")
    assert len(page.store.votes()) == 1
    button = browser.find_element(By.CSS_SELECTOR, '[data-outcome="tie"]')
    before = ready(browser)
    ActionChains(browser).double_click(button).perform()
    until(browser, lambda b: b.find_element(*SHOWN).get_attribute("data-presentation") != before)
    ready(browser)
    assert len(page.store.votes()) == 2


def test_undo_takes_back_the_last_vote_and_can_go_on(browser: Any, page: Served) -> None:
    first = enter(browser, page)
    assert not browser.find_element(By.ID, "undo").is_enabled()
    pressed(browser, "1")
    assert pressed(browser, "u") == first
    assert page.store.votes() == []
    assert "Taken back: answer 1" in text_of(browser, "said")
    pressed(browser, "2")
    assert [vote.outcome for vote in page.store.votes()] == ["right"]
    assert page.store.num_events() == 3


def test_skip_and_flag_are_kept_apart(browser: Any, page: Served) -> None:
    enter(browser, page)
    pressed(browser, "s")
    pressed(browser, "F")
    assert [vote.outcome for vote in page.store.votes()] == ["skip", "flag"]


def test_the_guidelines_open_with_a_question_mark_and_keys_do_nothing_behind_them(browser: Any, page: Served) -> None:
    shown = enter(browser, page)
    press(browser, "?", shift=True)
    dialog = browser.find_element(By.ID, "guidelines")
    assert dialog.is_displayed()
    assert "What to look at" in dialog.text
    press(browser, "1")
    press(browser, Keys.ESCAPE)
    until(browser, lambda b: not dialog.is_displayed())
    assert ready(browser) == shown
    assert page.store.votes() == []
    pressed(browser, "1")
    assert len(page.store.votes()) == 1


def test_a_modifier_of_the_browser_is_not_a_vote(browser: Any, page: Served) -> None:
    shown = enter(browser, page)
    ActionChains(browser).key_down(Keys.ALT).send_keys("1").key_up(Keys.ALT).perform()
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("0").key_up(Keys.CONTROL).perform()
    pressed(browser, "2")
    assert [vote.outcome for vote in page.store.votes()] == ["right"], shown


def test_two_raters_at_once_see_different_pairs_and_not_each_others_votes(browser: Any, tmp_path: Path) -> None:
    other = open_browser(tmp_path / "second profile")
    try:
        with served(desk(tmp_path, 8)) as page:
            enter(browser, page, "ann")
            enter(other, page, "bob")
            seen: dict[str, list[str]] = {"ann": [], "bob": []}
            for _ in range(4):
                for name, driver in (("ann", browser), ("bob", other)):
                    seen[name].append(text_of(driver, "prompt"))
                assert seen["ann"][-1] != seen["bob"][-1]
                pressed(browser, "1")
                pressed(other, "2")
            assert not set(seen["ann"]) & set(seen["bob"])
            assert {(vote.rater, vote.outcome) for vote in page.store.votes()} == {("ann", "left"), ("bob", "right")}
            assert "bob" not in browser.page_source
    finally:
        other.quit()


def test_over_two_hundred_presentations_the_better_answer_is_on_the_left_about_half_the_time(
    browser: Any, tmp_path: Path
) -> None:
    """Votes are sent from inside the page, by its own origin and cookie, without waiting for people's fingers."""
    send = """
        const done = arguments[0];
        (async () => {
            let state = await (await fetch("/api/next")).json();
            while (state.pair) {
                const outcome = state.pair.left[0].text.startsWith("good") ? "left" : "right";
                const body = JSON.stringify({presentation: state.pair.presentation, turn: state.pair.turn, outcome});
                const headers = {"Content-Type": "application/json"};
                state = await (await fetch("/api/vote", {method: "POST", body, headers})).json();
            }
            return state.progress.done;
        })().then(done, (error) => done(String(error)));
    """
    with served(desk(tmp_path, 200)) as page:
        enter(browser, page)
        browser.set_script_timeout(60)
        assert browser.execute_async_script(send) == 200
        (rater,) = findings(page.store, num_resamples=10).raters
    assert rater.left.whole == 200
    assert rater.left.p_value > 0.001
    assert rater.longer.part == 0, "the good answer is always the shorter one: sides do not hide that"


def test_markup_and_ten_kilobytes_are_shown_as_text(browser: Any, tmp_path: Path) -> None:
    evil = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> & <b>bold</b>"
    long = "word " * 2048
    store = desk(tmp_path, 0)
    store.add_pairs([make_pair(evil, evil + " answer", long, source="test")])
    with served(store) as page:
        enter(browser, page)
        assert text_of(browser, "prompt") == evil
        shown = {text_of(browser, "left"), text_of(browser, "right")}
        assert shown == {evil + " answer", long.strip()}
        assert browser.title == "Compare two answers"
        assert browser.find_elements(By.CSS_SELECTOR, ".text script, .text img, .text b") == []
        button = browser.find_element(By.CSS_SELECTOR, '[data-outcome="left"]')
        bottom = browser.execute_script("return arguments[0].getBoundingClientRect().bottom <= innerHeight", button)
        assert bottom, "however long the text, the buttons stay in sight"
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_a_wrong_token_shows_a_page_that_says_what_to_do(browser: Any, page: Served) -> None:
    browser.delete_all_cookies()
    browser.get(f"http://127.0.0.1:{page.port}/enter?token=wrong")
    assert "wrong or was used before" in browser.find_element(By.TAG_NAME, "main").text
    browser.get(f"http://127.0.0.1:{page.port}/")
    assert "not signed in" in browser.find_element(By.TAG_NAME, "main").text


def test_under_a_foreign_name_the_page_is_refused(browser: Any, page: Served, tmp_path: Path) -> None:
    """DNS rebinding: another name that leads to this machine."""
    rebound = open_browser(tmp_path / "rebound", "--host-resolver-rules=MAP evil.example 127.0.0.1")
    try:
        rebound.get(page.link("ann").replace("127.0.0.1", "evil.example"))
        assert "does not go by that name" in rebound.find_element(By.TAG_NAME, "body").text
        assert rebound.get_cookies() == []
    finally:
        rebound.quit()


def test_a_vote_that_could_not_be_sent_is_said_and_the_next_press_saves_it(browser: Any, page: Served) -> None:
    shown = enter(browser, page)
    browser.execute_script("window.realFetch = fetch; window.fetch = () => Promise.reject(new TypeError('offline'))")
    press(browser, "1")
    until(browser, lambda b: b.find_element(By.ID, "problem").is_displayed())
    assert "nothing was saved" in text_of(browser, "problem")
    assert ready(browser) == shown
    assert page.store.votes() == []
    browser.execute_script("window.fetch = window.realFetch")
    pressed(browser, "1")
    assert len(page.store.votes()) == 1
    assert not browser.find_element(By.ID, "problem").is_displayed()


def test_no_page_has_an_error_in_the_console_and_all_controls_have_names(browser: Any, page: Served) -> None:
    enter(browser, page, is_owner=True)
    browser.get_log("browser")
    browser.refresh()
    ready(browser)
    buttons = [button for button in browser.find_elements(By.TAG_NAME, "button") if button.is_displayed()]
    assert len(buttons) == 10
    assert all(button.accessible_name for button in buttons)
    for path in ("/agreement", "/"):
        browser.get(f"http://127.0.0.1:{page.port}{path}")
        assert browser.find_elements(By.TAG_NAME, "main")
        assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    ready(browser)
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_the_tab_key_reaches_the_buttons_and_enter_votes(browser: Any, page: Served) -> None:
    enter(browser, page)
    before = ready(browser)
    for _ in range(12):
        press(browser, Keys.TAB)
        if browser.switch_to.active_element.get_attribute("data-outcome") == "both_bad":
            break
    press(browser, Keys.ENTER)
    until(browser, lambda b: b.find_element(*SHOWN).get_attribute("data-presentation") != before)
    ready(browser)
    assert [vote.outcome for vote in page.store.votes()] == ["both_bad"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_every_page_fits_and_can_be_read(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    """No sideways scrolling; text against its background at 4.5 to 1 or more (WCAG 2.1, AA)."""
    store = desk(tmp_path, 40, Plan(raters_per_pair=2, gold_rate=0.2, repeat_rate=0.2))
    store.add_pairs(some_gold(9))
    bob = store.rater("bob")
    for _ in range(12):
        shown = store.next(bob)
        assert shown is not None
        store.clock.now += 9
        store.vote(bob, shown.id, turn=shown.turn, outcome="left", strength="slightly", seconds=7.5)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    look = Look(browser, f"{'dark' if dark else 'light'}-{width}")
    try:
        with served(store) as page:
            enter(browser, page, is_owner=True)
            pressed(browser, "1")
            look("rate")
            press(browser, "?", shift=True)
            look("guidelines")
            while vote_good(store, store.rater("ann")) and store.progress(store.rater("ann")).num_done < 25:
                pass
            browser.get(f"http://127.0.0.1:{page.port}/agreement")
            look("agreement")
            browser.get(f"http://127.0.0.1:{page.port}/enter?token=wrong")
            look("message")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
