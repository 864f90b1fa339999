# No mixing at all.
mixing = dict(augments=[], probs=None, same_on_all_ranks=True)
