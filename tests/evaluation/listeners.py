"""Scripted listeners of a listening test, and a key without media."""

import numpy as np

from foley_jax.evaluation.listening import answer_key, answers, questions

SYSTEMS = ("good", "fair", "poor", "real")
BEEPS = {"beeps1": 4, "beeps2": 2}


def plan(num_items=12, systems=SYSTEMS, kinds=questions.KINDS, checks=BEEPS, **settings):
    clips = {f"item{i}": {s: f"clip_{s}_{i}" for s in systems} for i in range(num_items)}
    return questions.make(clips, checks, kinds, **settings)


def key_of(made, systems=SYSTEMS, real="real"):
    public = answers.public("t1", "a test", made)
    flipped = {
        (number, made.questions[asked.question].id): asked.flipped
        for number, seat in enumerate(made.seats)
        for asked in seat
    }
    listed = {question.id: question for question in made.questions}
    return answer_key.Key(answers.Test.of(public), tuple(systems), real, listed, flipped, {})


class Listener:
    """Answers by known strengths, ratings and chances to be taken for real."""

    def __init__(self, name, strengths, ratings, called_real, rng, attentive=True):
        self.name, self.rng, self.attentive = name, rng, attentive
        self.strengths, self.ratings, self.called_real = strengths, ratings, called_real

    def answer(self, question):
        rng = self.rng
        if question.kind == questions.ATTENTION:
            return question.expected if self.attentive else question.expected % 5 + 1
        if question.kind == questions.PREFERENCE:
            one, other = (self.strengths[system] for system in question.systems)
            return question.clips[int(rng.random() > 1 / (1 + np.exp(other - one)))]
        system = question.systems[0]
        if question.kind == questions.REAL:
            return "real" if rng.random() < self.called_real[system] else "generated"
        return int(np.clip(np.rint(self.ratings[system] + rng.normal(0, 0.6)), 1, 5))

    def all_of(self, made):
        seat = questions.seat_of(self.name, len(made.seats))
        asked = [made.questions[one.question] for one in made.seats[seat]]
        return [answers.Answer(self.name, seat, q.id, self.answer(q), 1.0) for q in asked]
