"""The notebooks' exercises: a question, a checker, three hints; the answer itself is nowhere.

=================  ==================================================================================
``exercise``       ``Exercise`` and its ``Verdict``
``keys``           checkers that know only a salted hash of the answer
=================  ==================================================================================

One further module per notebook holds that notebook's exercises.
"""
