"""RowPredictor: trained networks whose output is rows.

From bags of word vectors ([`bag_network`][warmstart.vocabulary.predictor.bag_network]): HyperOFA. From the
source's own pieces ([`hypernetwork`][warmstart.vocabulary.predictor.hypernetwork], trained on tokenizers
that [`sampling`][warmstart.vocabulary.predictor.sampling] draws): ZeTT, whose network is trained once and
then fits any tokenizer.
"""
