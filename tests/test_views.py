"""Widgets without a browser: through the messages a browser would send, and by what they would show."""

import ast
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import made_features

import workbench.views
from workbench.dictionaries import TopK
from workbench.evaluation import Measurement, Scorecard
from workbench.exercises.exercise import Exercise
from workbench.language import Language
from workbench.models import GeneratedToken
from workbench.training import TrainConfig, train_many
from workbench.views.base import Panel, View, rounded
from workbench.views.browser import BrowserView, dictionary_browser
from workbench.views.columns import Column, ColumnsView, Shown
from workbench.views.curves import CurvesView, Reading, Row, Seen
from workbench.views.documents import document_browser
from workbench.views.exercise import predict
from workbench.views.feature import FeatureView, feature_dashboard
from workbench.views.notes import NotesView
from workbench.views.scorecard import LEGEND, scorecard_view
from workbench.views.steering import SteeringPanel
from workbench.views.tokens import TokenView
from workbench.views.training import training_panel

HERE = Path(workbench.views.__file__).parent
FOREIGN = '</script><img src="x" onerror="alert(1)">&'


def tell(widget, **state):
    """Change traits as the browser does."""
    widget._handle_msg({"content": {"data": {"method": "update", "state": state, "buffer_paths": []}}, "buffers": []})


def click(button):
    button._handle_msg({"content": {"data": {"method": "custom", "content": {"event": "click"}}}, "buffers": []})


def token_view():
    return TokenView(
        [["<bos>", "the", "dragon"], ["a", FOREIGN]],
        [[0.0, -1.0, 4.0], [0.0, 2.0]],
        titles=["first", FOREIGN],
        caption=FOREIGN,
        label=FOREIGN,
    )


def columns_view():
    view = ColumnsView()
    view.show(Shown(FOREIGN, FOREIGN, [Column(FOREIGN, [(FOREIGN, True), (FOREIGN, False)], 0.5, FOREIGN)], FOREIGN))
    return view


def notes_view():
    view = NotesView()
    view.add("wrong", FOREIGN)
    return view


def steering():
    def writer(prompt, vector, seed, cancel):
        return iter([GeneratedToken(5, f" {FOREIGN}", 3, -1.0)])

    panel = SteeringPanel(writer, direction=torch.ones(2), prompt=FOREIGN, targets=[5], max_new_tokens=1)
    panel.run_sync(1.0)
    return panel


def prediction():
    exercise = Exercise(id="x", question=FOREIGN, checker=lambda a: "", hints=("1", "2", "3"), choices=(FOREIGN, "no"))
    return predict(exercise, reveal=FOREIGN)


def curves_view():
    view = CurvesView()
    readings = [Reading(FOREIGN, FOREIGN, [(0.1, 1.0), (0.5, 0.0)], FOREIGN)]
    view.show(Seen(FOREIGN, FOREIGN, 0.5, [Row(FOREIGN, readings), Row("b", readings)], readings))
    return view


def training():
    dictionaries = {FOREIGN: TopK(4, 8, k=1), "b": TopK(4, 8, k=2)}
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    panel = training_panel(train_many(dictionaries, [x] * 3, TrainConfig(steps=3)))
    panel.run_sync()
    return panel


def browser():
    shown = document_browser(Language(0), family="lists", n=1)
    shown.tokens.caption = FOREIGN
    return shown


def foreign_features():
    return made_features(words=[FOREIGN] * 40)


def feature_view():
    return FeatureView(foreign_features(), 2)


def dashboard():
    return feature_dashboard(foreign_features(), 2)


def browser_view():
    return BrowserView(foreign_features().table)


def dictionary():
    return dictionary_browser(foreign_features())


def scorecard_of_two():
    def scores(value: float) -> dict[str, Measurement]:
        probe = Measurement(0.5, 0.4, 0.6, null=0.1, best=0.9)
        return {
            "fvu": Measurement(value, value - 0.1, value + 0.1, null=1.0, best=0.0),
            "l0": Measurement(16.0, math.nan, math.nan, null=128.0, best=math.nan),
            "mdl": Measurement(100 * value, 1.0, 2.0, null=190.0, best=math.nan),
            "probe_1": probe,
            "absorption": Measurement(0.2, 0.1, 0.3, null=0.0, best=0.0),
        }

    names = [FOREIGN, "b"]
    probes = [
        {"label": "topic", "value": value, "dictionary": name, "k": 1, "f1": 0.5, "low": 0.4, "high": 0.6}
        | {"shuffled": 0.1, "ceiling": math.nan}
        for name in names
        for value in ("sea", FOREIGN)
    ]
    absorbed = [{"dictionary": name, "parent": "a", "child": FOREIGN, "missed": 0.5, "rate": 0.2} for name in names]
    measured = {FOREIGN: scores(0.2), "b": scores(0.4) | {"kl": Measurement(0.1, 0.0, 0.2, null=3.0, best=0.0)}}
    return Scorecard(measured, pd.DataFrame(probes), pd.DataFrame(absorbed))


def scorecard():
    return scorecard_view(scorecard_of_two())


EVERY = [token_view, columns_view, notes_view, steering, prediction, browser, curves_view, training]
EVERY += [feature_view, dashboard, browser_view, dictionary, scorecard]


@pytest.fixture(params=EVERY, ids=lambda make: make.__name__)
def shown(request):
    return request.param()


# What every view owes.


def test_every_view_is_in_the_battery():
    # By name, because a widget with traits of its own is of a class of its own.
    made = {type(make()).__name__ for make in EVERY}
    assert made == {kind.__name__ for kind in [*View.__subclasses__(), *Panel.__subclasses__()]}


def test_a_view_is_live_static_and_plain(shown):
    data, _ = shown._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.model_id
    assert data["text/plain"] == repr(shown)
    assert not re.search(r"0x[0-9a-f]{6}", repr(shown))


def test_the_static_picture_is_inline_styled_and_escaped(shown):
    html = shown._repr_mimebundle_()[0]["text/html"]
    assert "<img" not in html
    assert "<script" not in html
    assert "class=" not in html
    assert "&lt;img src=&quot;x&quot;" in html


def test_the_static_picture_and_the_snapshot_are_the_same_twice(request, shown):
    again = request.node.callspec.params["shown"]()
    assert again._repr_mimebundle_()[0]["text/html"] == shown._repr_mimebundle_()[0]["text/html"]
    assert json.dumps(again.snapshot()) == json.dumps(shown.snapshot())
    assert list(shown.snapshot()) == sorted(shown.snapshot())


def test_an_exported_file_asks_for_nothing_and_holds_foreign_text_as_text(shown, tmp_path):
    html = shown.export_html(tmp_path / "view.html", title=FOREIGN).read_text("utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"https?://|<link|url\(", html)
    assert html.count("</script>") == 2  # the state's and the loader's own ends
    assert "<img" not in html


def test_an_error_is_shown_and_stays_in_the_static_picture(shown):
    shown.error = FOREIGN
    assert any(view.error == FOREIGN for view in shown.views())
    assert "&lt;/script&gt;" in shown.static_html()


def test_snapshots_are_sorted_and_rounded():
    assert rounded({"b": 0.123456, "a": [-0.0, (1, 2.00001)], "c": None}) == {
        "a": [0.0, [1, 2.0]],
        "b": 0.1235,
        "c": None,
    }
    assert list(rounded({"b": 1, "a": 2})) == ["a", "b"]


# What a scorecard is drawn from.


def test_numbers_lie_between_what_is_had_for_nothing_and_the_best():
    rows = {row["id"]: row for row in scorecard().shown["rows"]}
    first, second = rows["fvu@1"]["cells"]
    assert (first["at"], first["low"], first["high"]) == (0.8, 0.7, 0.9)
    assert second["at"] == 0.6
    assert [cell["at"] for cell in rows["mdl@1"]["cells"]] == [1.0, pytest.approx((190 - 40) / (190 - 20), abs=1e-3)]
    worse = scorecard_of_two()
    worse.scores[FOREIGN]["mdl"] = worse.scores["b"]["mdl"] = Measurement(
        200.0, 195.0, 205.0, null=190.0, best=math.nan
    )
    bits = next(row for row in scorecard_view(worse).shown["rows"] if row["id"] == "mdl@1")
    assert [cell["at"] for cell in bits["cells"]] == [0.0, 0.0]  # the best here is worse than nothing
    assert [cell["at"] for cell in rows["l0@1"]["cells"]] == [None, None]  # neither less nor more is better
    assert [cell["at"] for cell in rows["absorption@1"]["cells"]] == [None, None]  # random directions are no worst case
    assert rows["kl@1"]["cells"][0] == {"text": "–", "told": "not measured", "at": None}
    assert rows["fvu@1"]["cells"][0]["told"] == "0.2, between 0.1 and 0.3; for nothing 1, at best 0"
    assert rows["probe_1@1"]["parts"]["heads"][0] == "F1 of"
    assert rows["probe_1@1"]["parts"]["lines"][0] == ["topic sea", "0.5", "0.5", "0.1", "–"]
    assert LEGEND in scorecard().static_html()


# What no view may do.

BANNED = {"Output", "interact", "interactive", "interactive_output", "clear_output", "display_id", "HTML", "HTMLMath"}


@pytest.mark.parametrize("path", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_no_view_uses_what_loses_output_or_takes_html(path):
    tree = ast.parse(path.read_text())
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & BANNED


@pytest.mark.parametrize("path", sorted(HERE.glob("*.js")), ids=lambda path: path.name)
def test_no_module_writes_html_or_reaches_out(path):
    source = path.read_text().replace('"http://www.w3.org/2000/svg"', "")  # a name and no address
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|https?:|\bimport\b|\bfetch\b|\beval\b|XMLHttp", source
    )


def test_every_module_and_style_is_used_and_every_handler_guarded():
    sources = {path: path.read_text() for path in HERE.glob("*.py")}
    for path in [*HERE.glob("*.js"), *HERE.glob("*.css")]:
        assert any(f'"{path.name}"' in source for source in sources.values()), path
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("_on_"):
                guards = [ast.unparse(decorator) for decorator in node.decorator_list]
                assert guards == ["guarded"], f"{path.name}: {node.name}"


# Tokens.


def test_a_token_is_picked_from_the_browser():
    view = token_view()
    tell(view, picked=[0, 2])
    assert view.picked == [0, 2]
    assert view.snapshot()["picked"] == [0, 2]


@pytest.mark.parametrize("place", [[0, 3], [2, 0], [0, -1], [1]])
def test_a_pick_outside_is_an_error_in_sight(place):
    view = token_view()
    tell(view, picked=place)  # ipywidgets prints what is raised, and goes on
    assert view.error.startswith("picked must be [row, position]")
    assert view.picked == []
    tell(view, picked=[0, 0])
    assert view.error == ""


def test_the_token_view_names_its_strongest_token():
    assert "at 'dragon' (row 0, token 2)" in repr(token_view())
    assert "0 everywhere" in repr(TokenView([["a", "b"]], [[0.0, 0.0]]))


def test_the_sign_is_not_by_colour_alone():
    html = token_view().static_html()
    assert re.search(r'title="−1\.00" style="[^"]*dashed', html)
    assert re.search(r'title="\+4\.00" style="[^"]*solid', html)


def test_values_may_be_a_tensor():
    assert TokenView([["a", "b"]], torch.tensor([[1.0, 2.0]])).rows[0]["values"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("tokens", "values", "options", "message"),
    [
        (["a", "b"], [1.0, 2.0], {}, "put one document in a list of its own"),
        ([["a"]], [[1.0, 2.0]], {}, "document 0 has 1 tokens and 2 values"),
        ([["a"]], [[1.0], [2.0]], {}, "1 documents, 2 rows of values and 0 titles"),
        ([["a"]], [[1.0]], {"titles": ["x", "y"]}, "1 rows of values and 2 titles"),
        ([["a"]], [[float("nan")]], {}, "document 0 has a NaN or an infinity"),
        ([["a"]], [[1.0]], {"scale": 0.0}, "scale must be above 0"),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_the_token_view_says_what_is_wrong(tokens, values, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TokenView(tokens, values, **options)


# Predictions.


def panel_of(**options):
    exercise = Exercise(
        id="x",
        question="Which?",
        checker=lambda answer: "" if answer == "left" else "Look again.",
        hints=("one", "two", "three"),
        **options,
    )
    return predict(exercise, reveal="It was the left one.")


def shown_to_the_browser(panel):
    return json.dumps([view.state() for view in panel.views()]) + panel.static_html()


def test_nothing_is_revealed_before_a_guess_is_committed():
    panel = panel_of(choices=("left", "right"))
    assert "It was" not in shown_to_the_browser(panel)
    assert "three" not in shown_to_the_browser(panel)
    tell(panel.guess, index=1)
    click(panel.commit)
    assert "You predicted 'right': not so." in shown_to_the_browser(panel)
    assert "It was the left one." in shown_to_the_browser(panel)
    assert panel.snapshot() == {"exercise": "x", "prediction": "right", "right": False}


def test_the_first_guess_stands():
    panel = panel_of()
    tell(panel.guess, value="left")
    click(panel.commit)
    assert panel.verdict
    assert panel.guess.disabled
    assert panel.commit.disabled


def test_committing_nothing_asks_for_a_guess(caplog):
    panel = panel_of(choices=("left", "right"))
    click(panel.commit)  # ipywidgets logs what a click raises, and swallows it
    assert panel.error == "Make a prediction first, then commit it."
    assert panel.prediction is None
    tell(panel.guess, index=0)
    click(panel.commit)
    assert panel.error == ""
