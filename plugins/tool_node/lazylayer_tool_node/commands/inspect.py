"""`lazylayer inspect`: show what an image is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazylayer.cli import IMAGE, load_program, plain_http_override

if TYPE_CHECKING:
    from lazylayer.api.oci import Reference, ResolvedImage
    from lazylayer_tool_node.layers import LayerReport


@click.command()
@click.option("--plain-http", is_flag=True, help="Speak plain HTTP to the registry.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.argument("reference", type=IMAGE, metavar="REF")
@click.pass_context
def inspect(context: click.Context, reference: Reference, plain_http: bool, as_json: bool) -> None:
    """Show the manifest, platform, program and layers of the image REF.

    Fetches the manifest, the config, and the tables of contents of the layers.
    """
    from lazylayer.layers import resolve_image
    from lazylayer.mounts import Filesystem
    from lazylayer_tool_node.layers import examine_layers

    with load_program(context, plain_http_override(reference, plain_http)) as program:
        filesystem = Filesystem(program)
        try:
            resolved = resolve_image(program.hooks, program.settings, reference)
            layers = list(examine_layers(filesystem, resolved))
        finally:
            filesystem.close()
    click.echo(_as_json(resolved, layers) if as_json else _as_text(resolved, layers))


def _fields(resolved: ResolvedImage) -> dict[str, object]:
    config = resolved.config
    variant = f"/{config.variant}" if config.variant else ""
    return {
        "reference": str(resolved.reference),
        "digest": resolved.digest,
        "platform": f"{config.os}/{config.architecture}{variant}",
        "program": [*(config.config.get("Entrypoint") or ()), *(config.config.get("Cmd") or ())],
    }


def _as_json(resolved: ResolvedImage, layers: list[LayerReport]) -> bytes:
    import msgspec

    return msgspec.json.encode({**_fields(resolved), "layers": layers})


def _as_text(resolved: ResolvedImage, layers: list[LayerReport]) -> str:
    import shlex

    fields = _fields(resolved)
    fields["program"] = shlex.join(fields["program"]) or "none"  # type: ignore[arg-type]
    size = sum(layer.size for layer in layers)
    fields["size"] = f"{size / 1e6:.1f} MB in {len(layers)} layers, {sum(bool(each.format) for each in layers)} lazy"
    lines = [f"{key:<10} {value}" for key, value in fields.items()]
    for number, layer in enumerate(layers):
        what = f"{layer.format}, {layer.files} names, {layer.chunks} chunks" if layer.format else "not lazy"
        lines.append(f"layer {number:<4} {layer.digest[7:19]}  {layer.size / 1e6:8.1f} MB  {what}")
    return "\n".join(lines)
