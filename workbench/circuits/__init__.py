"""How parts and features of a model work together, and the models in which that is known.

=================  ==================================================================================
``known``          hand-wired transformers whose circuits are known by construction, and their check
=================  ==================================================================================
"""
