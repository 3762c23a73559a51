"""A map and a chronicle: where towns lie is known only through their relations, and when things happened.

No sentence gives coordinates. The labels ``east`` and ``north`` of a town, and ``year`` of an event, are what a reader
who has put it all together knows.
"""

from workbench.language.engine import Tracer
from workbench.language.families import Family, TaskSpec
from workbench.language.lexicon import CENTURY, DATES, DIRECTIONS, TOWNS
from workbench.language.splits import Grid

SIZE = len(TOWNS)
PLACE = {town: (row, column) for row, line in enumerate(TOWNS) for column, town in enumerate(line)}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
TEMPLATES = "1234"
EVENTS = tuple(DATES)
"""In the order in which they happened."""


def step(town: str, direction: str, steps: int = 1) -> str | None:
    """Return the town so many steps away, None past the edge of the map."""
    row, column = PLACE[town]
    row, column = row + steps * DIRECTIONS[direction][0], column + steps * DIRECTIONS[direction][1]
    return TOWNS[row][column] if 0 <= row < SIZE and 0 <= column < SIZE else None


def turns(town: str, direction: str) -> tuple[str, ...]:
    """Return where one can turn after a step."""
    neighbour = step(town, direction)
    assert neighbour is not None
    return tuple(d for d in DIRECTIONS if d not in (direction, OPPOSITE[direction]) and step(neighbour, d))


def build(seed: int) -> Family:
    """Build the family; the split holds out one template of a third of the neighbourhoods."""
    facts = tuple((town, direction) for town in PLACE for direction in DIRECTIONS if step(town, direction))
    written = Grid(f"{seed}|map", facts, TEMPLATES, one_per_row=True)

    def say_town(t: Tracer, town: str, **labels: str) -> None:
        row, column = PLACE[town]
        t.say(town, category="name", north=str(SIZE - row), east=str(column + 1), **labels)

    def begin(t: Tracer):
        return (place if t.choose("kind", ("map", "chronicle")) == "map" else event), (0,)

    def place(t: Tracer, told):
        town, direction = t.choose("fact", facts, held=written)
        template = t.choose("template", TEMPLATES, held=written)
        t.scope(template=template)
        neighbour = step(town, direction)
        assert neighbour is not None

        def say(text: str) -> None:
            for word in text.split():
                match word:
                    case "A":
                        say_town(t, town, role="start")
                    case "B":
                        say_town(t, neighbour, slot="town")
                    case _:
                        t.say(word)

        match template:
            case "1":
                say(f"One step {direction} of A lies B .")
            case "2":
                say(f"From A go {direction} to reach B .")
            case "3":
                # Any town on the same line will do, so nothing is certain here but the line.
                line = tuple(other for n in range(1, SIZE) if (other := step(town, direction, n)))
                say_town(t, t.choose("far", line))
                say(f"lies {direction} of A .")
            case "4":
                say(f"From A go {direction} and then")
                turn = t.choose("turn", turns(town, direction))
                end = step(neighbour, turn)
                assert end is not None
                t.say(turn)
                t.say("to")
                t.say("reach")
                say_town(t, end, slot="town")
                t.say(".")
        if told < 2 or (told < 4 and t.choose("more", (True, False))):
            return place, (told + 1,)

    def event(t: Tracer, told):
        def say_event(name: str) -> None:
            t.say(name, category="noun", year=DATES[name])

        frame = t.choose("frame", ("date", "before", "after"))
        t.say("After" if frame == "after" else "The")
        if frame == "date":
            name = t.choose("event", EVENTS)
            say_event(name)
            for word in ("was", "in"):
                t.say(word)
            t.say(CENTURY, category="number")
            t.say(DATES[name], category="number", year=DATES[name], slot="date")
        else:
            first = t.choose("first", EVENTS[:-1])
            second = t.choose("second", EVENTS[EVENTS.index(first) + 1 :])
            if frame == "after":
                t.say("the")
            say_event(first)
            for word in ("came", "before", "the") if frame == "before" else ("came", "the"):
                t.say(word)
            say_event(second)
        t.say(".")
        if told < 2 or (told < 4 and t.choose("more", (True, False))):
            return event, (told + 1,)

    tasks = {
        "map": TaskSpec("town", "fact", pairs=lambda a, b: a[1] == b[1] and turns(*a) == turns(*b)),
        "dates": TaskSpec("date", "event"),
    }
    return Family("map", begin, tasks, weight=1.5)
