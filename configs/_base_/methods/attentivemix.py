# AttentiveMix by itself in every step, as OpenMixup's benchmark runs it (arXiv 2209.04851), whose figures the SMMix
# paper cites: the number of cells is drawn (published: 6). It needs a teacher, see ../teachers. That is a transformer
# here, which tells its strongest cells by attention; by='activation' is the form for a ResNet, as in the benchmark.
mixing = dict(
    augments=[dict(type='smmix_mm.AttentiveMix', cells=None, alpha=2.0, cell_size=32, by='attention')],
    probs=[1.0],
    same_on_all_ranks=True,
)
