# AttentiveMix alone in every step, as in OpenMixup's benchmark (arXiv 2209.04851), whose results the SMMix paper cites.
# The number of cells is drawn (published: 6). The method needs a teacher, see ../teachers. Here the teacher is a
# transformer, whose attention selects the strongest cells; by='activation' suits a ResNet, as in the benchmark.
mixing = dict(
    augments=[dict(type='smmix_mm.AttentiveMix', cells=None, alpha=2.0, cell_size=32, by='attention')],
    probs=[1.0],
    same_on_all_ranks=True,
)
