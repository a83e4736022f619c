"""What the commands call: read the files, build the parts, train, evaluate, report.

Commands import the modules of this room inside their functions, since torch takes a second: `run` trains, `inspection`
reads finished runs, `catalogue` lists, `channel_removal` thins a checkpoint.
"""
