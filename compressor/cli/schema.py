"""compress schema"""

import json

import click


@click.command()
@click.option("--config", "config", is_flag=True, help="The schema of configurations instead of schedules.")
def schema(config: bool) -> None:
    """Print the JSON Schema (draft-07) of schedules or configurations, for editors."""
    from compressor.schedule import schema as schemas

    click.echo(json.dumps(schemas.config() if config else schemas.schedule(), indent=1))
