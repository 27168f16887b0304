"""Trunks for other programs: `vissl-lite export`.

    a trunk of ours --Target.write--> file --Target.features, by the other program--> features
                    -------------------- ours ----------------------------------->    the same

One target per file. A target that cannot express a trunk says so before anything is written, and a
file appears only once its features are ours.
"""
