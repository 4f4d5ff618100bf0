"""Options of each command, and the checks that need neither torch nor the network.

``NAME.NAMECommand`` is a frozen dataclass, importable without torch, torchvision, matplotlib or numpy, so help and
rejections are quick; the module ``ghostnets.cli.NAME`` does the work and is imported after the checks.
"""
