"""The recipe of `models/xc2-scenes`: drawn scenes, talk about them, and a tiny XComposer2 that learns both.

Read in this order: `scenes` (what can be in a picture), `renderer` (how it is drawn), `wording` and `tasks` (what is said
about it), `prompts` (how that becomes tokens), `model`, `stages`, `evaluation`. `README.md` beside this has the commands.
"""
