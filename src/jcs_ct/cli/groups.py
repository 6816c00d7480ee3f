"""Groups of commands whose lists are not cut off in a narrow terminal."""

from __future__ import annotations

import click


class Group(click.Group):
    """A group that lists the whole first sentence of each command's help, over several lines where it is long."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, one.get_short_help_str(limit=1000)) for name, one in commands if one and not one.hidden]
            )
