"""Policy: who may open what, for how long, with whose consent."""
