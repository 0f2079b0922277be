"""From a dump of tagged illustrations to the data set folder that `load_dataset("danmul")` reads (paper §III).

Never imports `modeling_mfdn`: the two meet in files.
"""
