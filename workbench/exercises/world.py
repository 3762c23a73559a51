"""The exercises of notebook 01."""

from workbench.exercises.exercise import Exercise
from workbench.exercises.keys import key

CEILING = Exercise(
    id="world-ceiling",
    question="A story has named a place and things, and no feeling yet. How well can the best probe tell its mood?",
    checker=key("world-ceiling", "c001a12308d01decfb76d4a1ca6212446f69e84369acc36b09b1fc7591475807"),
    hints=(
        "What has the story said of its mood when it has named a place, and nothing more?",
        "Look at the figure of the story: how high are the bars before 'shiny', the first word of feeling?",
        "Stories are as often happy as sad, and place, people and things do not depend on it.",
    ),
    choices=("always right", "three times in four", "no better than a coin"),
)

VARIANCE = Exercise(
    id="world-variance",
    question="A network is right on both questions 99 times of 100. Which explains more of the variance of its layer?",
    checker=key("world-variance", "e8ec2c22ccce9f5528656981eb02667b559e6c96141e124e19a1d9045470377f"),
    hints=(
        "What has a network to do for each, before it can answer?",
        "A linear question can be answered by every unit a little; an exclusive or needs units of its own.",
        "Gradient descent finds the linear one first, and whatever helps it stays.",
    ),
    choices=("the linear one", "the exclusive or", "both the same"),
)
