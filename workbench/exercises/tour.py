"""The exercises of notebook 00."""

from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key

KEPT = Exercise(
    id="tour-kept",
    question="The dictionary may use sixteen features on each token. How much of the variance is lost?",
    checker=key("tour-kept", "6154e8ef12454d4d83f34c0d0ec8f5e7927f26fe20e498bcc011ff294cded2e1"),
    hints=(
        "A feature is a direction, and its strength is one number: how many numbers describe a token now?",
        "The dictionary was trained to lose as little as possible, and stories of one language have much in common.",
        "Run the next cell: it prints the share that is lost.",
    ),
    choices=("more than half", "about a quarter", "less than a twentieth"),
)

CONTROL = Exercise(
    id="tour-control",
    question="We add a random direction of the same length. What happens to the probability of the topic's words?",
    checker=key("tour-control", "c79012b76fb9eef053c3e5ace74c3e057dc38fa5de7cf76bb978925431fa7ad2"),
    hints=(
        "How much of a random direction lies along any given one, in a space of a hundred dimensions?",
        "About one part in the square root of a hundred, with either sign.",
        "Look at the grey band of the next figure: it is what eight random directions do.",
    ),
    choices=("it rises as much", "it hardly moves", "it falls to zero"),
)
