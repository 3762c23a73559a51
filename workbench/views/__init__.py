"""Results as widgets: State (traitlets) / Engine (cancellable jobs; may run a model) / View (never does).

The only room that imports ipywidgets and anywidget. Controls are ordinary ipywidgets; what is looked at is a
``View``, an anywidget with one hand-written ES module. Every view also reads as a static picture in the saved
notebook, as a JSON snapshot, and as one HTML file that works offline.

=================  ==================================================================================
``base``           ``View`` and ``Panel``: repr, snapshot, static HTML, export, the error area
``export``         one self-contained HTML file
``jobs``           one background thread, cancellable jobs, ``guarded`` handlers
``tokens``         ``TokenView``: tokens shaded by a signed number each
``documents``      ``document_browser``: documents coloured by a label or by surprise
``columns``        ``ColumnsView``: texts side by side, each with its count
``comparison``     the engine of the steering panel
``steering``       ``steering_panel``: steered, unsteered and random-direction text, streaming
``feature``        ``feature_dashboard``: one feature, its examples, tokens, effects and neighbours
``browser``        ``dictionary_browser``: all features as points and as a table, with a search
``scorecard``      ``scorecard_view``: every number of a scorecard, between nothing and the best
``curves``         ``CurvesView``: numbers with the curves of how they came there
``training``       ``training_panel``: a training, live, with pause, resume and cancel
``notes``          ``NotesView``: short marked paragraphs
``exercise``       ``predict``: commit a guess, then see the answer
=================  ==================================================================================

Each view's module is ``frame.js`` followed by its own file, and its style ``frame.css`` followed by its own.
"""
