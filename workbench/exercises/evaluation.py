"""The exercises of notebook 07."""

from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key

RECOVERED = Exercise(
    id="real-recovered",
    question="One dictionary has random directions that were never trained. How much of the loss does it win back?",
    checker=key("real-recovered", "6d402735d754dcc9d351986028fd13d7ea30ce276f1c556db25465fc82dd53d5"),
    hints=(
        "Its encoder was trained: which sixteen of a thousand directions would you use for a given activation?",
        "It need not be exact: the layers that follow forgive errors that do not matter for the next word.",
        "Both of its bars in the next figure are above 0.9.",
    ),
    choices=("less than half", "about three quarters", "more than nine tenths"),
)

BITS = Exercise(
    id="real-bits",
    question="The neurons rebuild everything. What do their codes cost in bits, beside sending no codes at all?",
    checker=key("real-bits", "4a81a84b31245e1217b1ffa2cfb143a960599bbf05c0ba159e00ae826aa634be"),
    hints=(
        "How many of the 128 neurons have to be sent for one activation?",
        "Principal components have nothing in common with each other. What of neurons, each sent by itself?",
        "What two neurons have in common is sent twice; most of them have something in common.",
    ),
    choices=("less than half", "about as much", "more than twice as much"),
)

ABSORBED = Exercise(
    id="real-absorbed",
    question="In which are the fewest kinds absorbed, the feature of their parent silent and another in its place?",
    checker=key("real-absorbed", "ba2273ea4a4d736249b1d71e7dba653ebb2e6ed9479a102773694b870f1787d6"),
    hints=(
        "When is a feature of the parent silent? And what if it never is?",
        "All 128 neurons are active on every activation, whatever they are taken to stand for.",
        "It is the one of which nobody would say that it has features at all.",
    ),
    choices=("the shipped one", "the one with random directions", "the neurons"),
)

SWAP = Exercise(
    id="real-swap",
    question="We exchange 32 features of the random directions for what they are in the other prompt. "
    "How often does the answer change with them?",
    checker=key("real-swap", "3b6babb78cf2ffe1038a2dd688421adfc2ba380e6a2a695ab29c3a071bd1f924"),
    hints=(
        "It uses sixteen directions on either activation: 32 are all that it has.",
        "What a dictionary does not rebuild stays as it was. What does this one leave out?",
        "It leaves nearly two fifths of the variance, and the name that is asked for is small beside the rest.",
    ),
    choices=("nearly always", "about half of the time", "hardly ever"),
)
