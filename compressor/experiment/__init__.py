"""What the commands call: read the files, build the parts, train, evaluate, report.

Commands import the modules of this room inside their functions, since torch takes a second: `run` trains, `loading`
loads checkpoints, `inspection` reports on them and plans schedules, `catalogue` lists, `channel_removal` thins a
checkpoint, `starting` writes the files of `compress new`.
"""
