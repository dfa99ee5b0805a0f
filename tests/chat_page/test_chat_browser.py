"""The chat page in a real Chromium: ask, look at tokens by mouse and by keyboard, file a comparison, take it back.

Needs what `tests/browser.py` needs; see there for the variables that name other binaries and a folder for
pictures.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.rating.preference_rows import preference_rows
from tests.browser import Look, needs_browser, open_browser
from tests.chat_page.small_run import chat_served, loaded, with_turns
from tests.rating.desk import Served

pytest.importorskip("fastapi", reason='the page needs the extra: pip install "rlhf-lab[rate]"')
pytest.importorskip("selenium", reason="to test the page in a browser: pip install selenium")
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.rating.test_browser import press, text_of

pytestmark = needs_browser
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def until(browser: Any, condition: Callable[[Any], Any]) -> Any:
    """Wait; whatever is looked at may be replaced meanwhile, for each change draws its question anew."""
    waiting = WebDriverWait(browser, 20, poll_frequency=0.05, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(condition)


def enter(browser: Any, page: Served) -> None:
    browser.get(page.link("ann"))
    until(browser, lambda b: b.find_elements(By.ID, "talk"))
    settle(browser)


def settle(browser: Any) -> None:
    """Until no model is writing, and no button is asleep after a change."""
    until(browser, lambda b: b.find_element(By.ID, "talk").get_attribute("data-busy") == "false")
    time.sleep(0.35)


def ask(browser: Any, question: str = QUESTION, *, blind: bool = True) -> Any:
    """Type and send; returns the new question's article."""
    before = len(all_of(browser, ".question"))
    if browser.find_element(By.ID, "blind").is_selected() is not blind:
        browser.find_element(By.ID, "blind").click()
    browser.execute_script("arguments[0].value = arguments[1]", browser.find_element(By.ID, "text"), question)
    browser.find_element(By.ID, "text").send_keys(Keys.ENTER)
    until(browser, lambda b: len(all_of(b, ".question")) == before + 1)
    settle(browser)
    return latest(browser)


def all_of(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements(By.CSS_SELECTOR, selector))


def latest(browser: Any) -> Any:
    return all_of(browser, ".question")[-1]


def click(browser: Any, selector: str) -> None:
    """Click in the newest question, and wait until the page has followed."""
    button = latest(browser).find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)  # out from behind the form
    button.click()
    settle(browser)


def show_names(browser: Any) -> Any:
    click(browser, "[data-names]")
    until(browser, lambda b: latest(b).get_attribute("data-named") == "true")
    settle(browser)
    return latest(browser)


def tokens(browser: Any, stage: str = "ppo") -> list[Any]:
    return list(latest(browser).find_elements(By.CSS_SELECTOR, f'[data-stage="{stage}"] .token'))


def readout(browser: Any, stage: str = "ppo") -> str:
    return str(latest(browser).find_element(By.CSS_SELECTOR, f'[data-stage="{stage}"] .readout').text)


def levels(browser: Any) -> list[int]:
    script = "return [...arguments[0].querySelectorAll('.token')].map((token) => Number(token.dataset.level))"
    return list(browser.execute_script(script, latest(browser)))


def test_three_answers_come_blind_and_show_coloured_tokens_once_names_are_shown(browser: Any, page: Served) -> None:
    enter(browser, page)
    article = ask(browser)
    heads = [head.text for head in article.find_elements(By.CSS_SELECTOR, ".answer h3")]
    assert heads == ["Answer A", "Answer B", "Answer C"]
    assert article.find_elements(By.CSS_SELECTOR, ".token, dl, .key") == []
    texts = [text.text for text in article.find_elements(By.CSS_SELECTOR, ".answer .text")]
    article = show_names(browser)
    heads = [head.text for head in article.find_elements(By.CSS_SELECTOR, ".answer h3")]
    assert sorted(head.split(" · ")[0] for head in heads) == ["Base", "PPO", "SFT"]
    assert [head.split(" · ")[1] for head in heads] == ["A", "B", "C"]
    shown = browser.execute_script(
        "return [...arguments[0].querySelectorAll('.tokens')].map((row) => [...row.children]"
        ".filter((token) => !token.matches('.special, .part')).map((token) => token.textContent).join(''))",
        article,
    )
    assert [" ".join(text.split()) for text in shown] == [" ".join(text.split()) for text in texts]
    assert len(set(levels(browser))) > 2
    assert "PPO likelier" in article.find_element(By.CSS_SELECTOR, ".legend").text
    facts = [facts.text for facts in article.find_elements(By.CSS_SELECTOR, "dl")]
    assert all("Score" in one and "nats" in one and "12 tokens" in one for one in facts if "cut off" in one)
    assert sum("KL to SFT" in one for one in facts) == 1


def test_without_blind_names_and_colours_are_there_at_once_and_no_vote(browser: Any, page: Served) -> None:
    enter(browser, page)
    article = ask(browser, blind=False)
    assert [head.text for head in article.find_elements(By.CSS_SELECTOR, ".answer h3")] == ["Base", "SFT", "PPO"]
    assert article.find_elements(By.CSS_SELECTOR, "[data-outcome]") == []
    assert "turn Blind on" in article.text


def test_numbers_of_a_token_are_told_to_mouse_and_keyboard(browser: Any, page: Served) -> None:
    enter(browser, page)
    ask(browser, blind=False)
    found = tokens(browser)
    assert "arrow keys" in readout(browser)
    assert [token.get_attribute("tabindex") for token in found] == ["0", *["-1"] * (len(found) - 1)]
    ActionChains(browser).move_to_element(found[2]).perform()
    assert found[2].accessible_name.endswith(readout(browser).partition(" PPO against")[2])
    assert "nats" in readout(browser)
    assert "value" in readout(browser)
    browser.find_element(By.ID, "text").click()
    seen = set()
    for _ in range(40):  # back from the form, by the keyboard alone
        press(browser, Keys.TAB, shift=True)
        active = browser.switch_to.active_element
        if active == tokens(browser)[2]:
            break
        assert active not in tokens(browser), "a row of tokens is one stop, at the token that was looked at last"
    for key, place in ((Keys.ARROW_RIGHT, 3), (Keys.ARROW_RIGHT, 4), (Keys.ARROW_LEFT, 3), (Keys.HOME, 0)):
        press(browser, key)
        active = browser.switch_to.active_element
        assert active == tokens(browser)[place]
        assert active.accessible_name.endswith(readout(browser).partition(" PPO against")[2])
        seen.add(readout(browser))
    assert len(seen) == 3
    press(browser, Keys.END)
    assert browser.switch_to.active_element == tokens(browser)[-1]


def test_colours_switch_between_measures_and_everything_can_be_read_as_a_table(browser: Any, page: Served) -> None:
    enter(browser, page)
    ask(browser, blind=False)
    by_log_ratio = levels(browser)
    click(browser, '.key [data-measure="value"]')
    assert "more reward ahead" in latest(browser).find_element(By.CSS_SELECTOR, ".legend").text
    by_value = levels(browser)
    assert by_value != by_log_ratio
    click(browser, '.key [data-measure="none"]')
    assert set(levels(browser)) == {0}
    click(browser, ".key [data-table]")
    rows = latest(browser).find_elements(By.CSS_SELECTOR, '[data-stage="ppo"] tbody tr')
    assert len(rows) == len(tokens(browser))
    for row, token in zip(rows, tokens(browser), strict=True):
        assert row.find_elements(By.TAG_NAME, "td")[0].text + " nats" in token.accessible_name
    click(browser, ".key [data-table]")
    assert latest(browser).find_elements(By.TAG_NAME, "table") == []


def test_the_sign_of_a_colour_is_the_sign_of_its_number(browser: Any, page: Served) -> None:
    enter(browser, page)
    ask(browser, blind=False)
    for stage in ("base", "sft", "ppo"):
        for token in tokens(browser, stage):
            number = float(token.accessible_name.partition("PPO against SFT ")[2].split(" nats")[0].replace("−", "-"))
            level = int(token.get_attribute("data-level"))
            nearest = max(-4.0, min(4.0, 2 * number))  # two steps a nat, four on each side
            assert abs(nearest - level) <= 0.52


def test_a_comparison_is_filed_once_and_can_be_taken_back(browser: Any, page: Served) -> None:
    enter(browser, page)
    article = ask(browser)
    texts = [text.text for text in article.find_elements(By.CSS_SELECTOR, ".answer .text")]
    click(browser, '[data-pair="2"]')
    button = latest(browser).find_element(By.CSS_SELECTOR, '[data-outcome="right"][data-strength="clearly"]')
    assert button.text == "C clearly better"
    ActionChains(browser).double_click(button).perform()
    until(browser, lambda b: "Saved: C clearly better than B" in latest(b).text)
    settle(browser)
    (row,) = preference_rows(page.store)
    assert [" ".join(row[side].split()) for side in ("chosen", "rejected")] == [
        " ".join(text.split()) for text in (texts[2], texts[1])
    ]
    assert page.store.num_events() == 1
    assert not latest(browser).find_element(By.CSS_SELECTOR, '[data-outcome="tie"]').is_enabled()
    click(browser, "[data-undo]")
    until(browser, lambda b: "Saved" not in latest(b).text)
    assert page.store.votes() == []
    settle(browser)
    click(browser, '[data-outcome="both_bad"]')
    click(browser, '[data-pair="0"]')
    click(browser, '[data-outcome="left"][data-strength="slightly"]')
    assert [vote.outcome for vote in page.store.votes()] == ["both_bad", "left"]
    article = show_names(browser)
    filed = [one.text for one in article.find_elements(By.CSS_SELECTOR, ".filed li")]
    assert len(filed) == 2
    assert article.find_elements(By.CSS_SELECTOR, "[data-outcome]") == []
    click(browser, ".filed li:last-child [data-undo]")
    until(browser, lambda b: len(all_of(b, ".filed li")) == 1)
    assert len(page.store.votes()) == 1


def test_the_keyboard_alone_asks_votes_and_shows_names(browser: Any, page: Served) -> None:
    enter(browser, page)
    press(browser, QUESTION + Keys.ENTER)
    until(browser, lambda b: all_of(b, ".question"))
    settle(browser)
    for wanted in ("[data-outcome=tie]", "[data-names]"):
        for _ in range(40):
            press(browser, Keys.TAB, shift=True)
            if browser.switch_to.active_element in all_of(browser, wanted):
                break
        press(browser, Keys.ENTER)
        settle(browser)
    assert [vote.outcome for vote in page.store.votes()] == ["tie"]
    assert latest(browser).get_attribute("data-named") == "true"


def test_again_draws_new_samples_of_the_same_question(browser: Any, page: Served) -> None:
    enter(browser, page)
    browser.find_element(By.ID, "seed").send_keys("5")
    first = ask(browser).text
    click(browser, "[data-again]")
    until(browser, lambda b: len(all_of(b, ".question")) == 2)
    assert "seed 5" in first
    assert "seed 5\n" not in latest(browser).text
    assert [head.text for head in all_of(browser, ".asked")] == [QUESTION] * 2


def test_a_refresh_keeps_questions_votes_and_blindness(browser: Any, page: Served) -> None:
    enter(browser, page)
    ask(browser)
    click(browser, '[data-outcome="tie"]')
    ask(browser, "And another?", blind=False)
    before = [" ".join(one.text.split()) for one in all_of(browser, ".question")]
    browser.refresh()
    settle(browser)
    assert [" ".join(one.text.split()) for one in all_of(browser, ".question")] == before
    assert "Saved: A and B: tie" in before[0]


def test_markup_and_ten_kilobytes_are_shown_as_text(browser: Any, page: Served) -> None:
    evil = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\"> & <b>bold</b>"
    enter(browser, page)
    article = ask(browser, evil)
    assert article.find_element(By.CLASS_NAME, "asked").text == evil
    article = ask(browser, evil + " word" * 2048)
    assert "the models read the last 40" in article.find_element(By.CLASS_NAME, "note").text
    assert not article.find_element(By.CSS_SELECTOR, '[data-outcome="tie"]').is_enabled()
    assert "would not be fair" in article.text
    assert browser.title == "Chat with secretly_named"
    assert all_of(browser, "main script, main img, main b") == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_an_empty_question_is_not_asked_and_a_lost_server_loses_no_text(browser: Any, page: Served) -> None:
    enter(browser, page)
    press(browser, "  " + Keys.ENTER)
    until(browser, lambda b: b.find_element(By.ID, "problem").is_displayed())
    assert text_of(browser, "problem") == "Type a question first."
    browser.execute_script("window.realFetch = fetch; window.fetch = () => Promise.reject(new TypeError('offline'))")
    press(browser, "Still here?" + Keys.ENTER)
    until(browser, lambda b: "does not answer" in text_of(b, "problem"))
    settle(browser)
    assert browser.find_element(By.ID, "text").get_attribute("value").strip() == "Still here?"
    browser.execute_script("window.fetch = window.realFetch")
    press(browser, Keys.ENTER)
    until(browser, lambda b: all_of(b, ".question"))
    assert not browser.find_element(By.ID, "problem").is_displayed()
    assert browser.find_element(By.ID, "text").get_attribute("value") == ""


def test_a_conversation_goes_on_from_the_answer_that_was_chosen(browser: Any, tmp_path: Path) -> None:
    with chat_served(tmp_path, loaded(with_turns(tmp_path / "talkative"))) as page:
        enter(browser, page)
        ask(browser, "hello")
        assert text_of(browser, "continues-text") == "Continues from Answer A."
        chosen = latest(browser).find_element(By.CSS_SELECTOR, '[data-letter="C"] .text').text
        click(browser, '[data-letter="C"] [data-continue]')
        assert text_of(browser, "continues-text") == "Continues from Answer C."
        article = ask(browser, "and then?", blind=True)
        assert "After Answer C above." in article.text
        click(browser, '[data-outcome="tie"]')
        browser.find_element(By.ID, "anew").click()
        ask(browser, "something else")
        click(browser, '[data-outcome="tie"]')
        talked, single = (pair.prompt for pair in sorted(page.store.pairs().values(), key=lambda p: -len(p.prompt)))
    assert [message["role"] for message in talked] == ["user", "assistant", "user"]  # type: ignore[index]
    assert " ".join(talked[1]["content"].split()) == " ".join(chosen.split())  # type: ignore[index]
    assert len(single) == 1


def test_no_error_in_the_console_and_all_controls_have_names(browser: Any, page: Served) -> None:
    browser.get_log("browser")
    enter(browser, page)
    ask(browser)
    show_names(browser)
    ask(browser)
    controls = [one for one in all_of(browser, "button, input, textarea") if one.is_displayed()]
    assert len(controls) > 15
    assert all(one.accessible_name for one in controls)
    browser.find_element(By.ID, "help").click()
    assert "estimates how far PPO has moved" in browser.find_element(By.ID, "meaning").text
    press(browser, Keys.ESCAPE)
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_every_state_fits_and_can_be_read(browser: Any, page: Served, width: int, dark: bool) -> None:
    """No sideways scrolling; text against its background, coloured tokens too, at 4.5 to 1 or more (WCAG 2.1, AA)."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    look = Look(browser, f"{'dark' if dark else 'light'}-{width}")
    try:
        enter(browser, page)
        look("chat-opening")
        ask(browser)
        click(browser, '[data-outcome="tie"]')
        look("chat-blind")
        show_names(browser)
        assert {-4, 4} <= set(levels(browser)), "the strongest colours are among those that are looked at"
        look("chat-tokens")
        click(browser, '.key [data-measure="value"]')
        look("chat-values")
        click(browser, ".key [data-table]")
        look("chat-table")
        ask(browser, "word " * 2048)
        look("chat-long")
        press(browser, Keys.ENTER)
        look("chat-problem")
        browser.find_element(By.ID, "help").click()
        look("chat-meaning")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
