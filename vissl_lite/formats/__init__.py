"""Weights from elsewhere: which format a file is in, and its tensors under our trunks' names.

    tensors of a file --Format--> those of the trunk --Naming--> our names --settings--> our trunk

A format says where in a file the trunk is and what else is there (one file each, `FORMATS` in
`recognise.py`), a naming how a library calls the tensors of a network (`resnet.py`, `regnet.py`,
`vit.py`). Both are chosen by the tensors' names and shapes, never by the name of the file.
`identify.py` finds networks of torchvision and timm that no trunk of ours is, by building them.
"""
