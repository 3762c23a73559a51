"""The exercises of notebook 08."""

from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key

ILLUSION = Exercise(
    id="features-illusion",
    question="All of the strongest tenth of its activations are labelled with the topic. How many of all are?",
    checker=key("features-illusion", "92d398e9482bbb6b8843ef5e99461a84d88ab68afeda94fcac2e8a34610ee61e"),
    hints=(
        "Did the dashboard's examples by quantile look like its strongest ones?",
        "Most of its activations are weak, as the histogram says.",
        "In the next figure, take the mean of the ten points.",
    ),
    choices=("nearly all", "about two thirds", "about a quarter"),
)

RANDOM = Exercise(
    id="features-random",
    question="How often does the label that was chosen fit the strongest tenth of a random direction?",
    checker=key("features-random", "50683ee688429b9b174681c6e547cec907af06c9e2d0361027c21bc730fbe1f3"),
    hints=(
        "What lies furthest along any direction in a cloud of points: anything, or neighbours?",
        "Tokens that are alike have like activations, and there are some 250 labels to choose from.",
        "Look at the left end of the next figure.",
    ),
    choices=("hardly ever", "half as often as with features", "nearly as often as with features"),
)

LOST = Exercise(
    id="features-lost",
    question="We silence the weaker four fifths of its activations. What does it cost, beside the strongest fifth?",
    checker=key("features-lost", "08da0c8f95c903d4f8b443efa72781183c069930f731ce5797d50bad80d0ced5"),
    hints=(
        "The weak ones are four times as many. Are they as strong together?",
        "Remember the histogram: where is a fifth of the activations, and where are most?",
        "What was the feature found to write, and where is that expected?",
    ),
    choices=("several times as much", "about as much", "less than a quarter"),
)
