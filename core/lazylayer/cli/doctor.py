"""`lazylayer doctor`: what this machine can do, and what to change."""

from __future__ import annotations

import click

from lazylayer.cli.invocation import Invocation


@click.command()
@click.option("--json", "as_json", is_flag=True, help='One JSON object: {"findings": […]}.')
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Show what this machine can do, and what to change.

    Exits with 1 if something stops lazylayer from working as it is configured.
    """
    import msgspec

    from lazylayer.api.text import one_line
    from lazylayer.cli.examination import examine

    invocation = context.ensure_object(Invocation)
    configuration = invocation.configuration()
    settings = configuration.settings
    plugins = invocation.plugins(settings.plugins)
    plugins.configure(settings, configuration.plugin_tables)
    findings = examine(settings, plugins)
    if as_json:
        click.echo(msgspec.json.encode({"findings": [msgspec.to_builtins(finding) for finding in findings]}))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.verdict:<8}{finding.topic:<{width + 2}}{one_line(finding.text + remedy)}")
    context.exit(int(any(finding.verdict == "problem" for finding in findings)))
