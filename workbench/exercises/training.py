"""The exercises of notebook 06."""

from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key

FOUND = Exercise(
    id="training-found",
    question="TopK leaves a quarter of the variance unexplained, BatchTopK a tenth. Which finds more of the features?",
    checker=key("training-found", "1cc4afef3752efd2bfbebb5f30da8d3df3a17b5127de778f851e8591f443e905"),
    hints=(
        "What does TopK leave on an activation of eight features, of which it may use four?",
        "And how many latents may BatchTopK spend there, having saved them on activations of one feature?",
        "Whoever may use nine latents for eight features need not use the right ones.",
    ),
    choices=("BatchTopK, which leaves less", "TopK, which leaves more", "both find the same"),
)

SHUFFLED = Exercise(
    id="training-shuffled",
    question="We shuffle each column of the activations. How much do sixteen latents leave, beside before?",
    checker=key("training-shuffled", "b9a02b85fad9f2fef8befa6bf39a6c4fc878109c13e459d635923b161dc8c41b"),
    hints=(
        "Shuffled, do two numbers of an activation still know of each other?",
        "Then a latent that gets one number right says nothing of the 127 others.",
        "Sixteen latents for 128 numbers that have nothing to do with each other: look at the highest line of the "
        "next figure.",
    ),
    choices=("about as little", "several times as much", "everything"),
)

PARENT = Exercise(
    id="training-parent",
    question="A child never fires without its parent. How often is TopK's latent of the parent silent on its rows?",
    checker=key("training-parent", "16f74f01c3cba179067b512c5459ff050a8c8a708f4d53524d40d88ee44ec8a9"),
    hints=(
        "TopK may use two latents. Where a child fires, and a feature without a family too, how many would it need?",
        "A latent that points between parent and child explains both, at the price of one.",
        "The first group of bars of the next figure is TopK.",
    ),
    choices=("never", "one time in ten", "more than half of the time"),
)
