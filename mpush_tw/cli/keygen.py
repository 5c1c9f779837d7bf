"""
C{mpush keygen}: a key pair, and the lines that use it (operations 10).
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from mpush_tw.protocol.crypto import RsaPrivateKey


@click.command()
@click.option(
    "--bits",
    type=click.IntRange(1024, 8192),
    default=2048,
    show_default=True,
    help="Size of the key. Old phones are quicker with 1024, strangers too.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write private.pem and public.pem into this directory as well.",
)
def keygen(bits: int, out: Path | None) -> None:
    """
    Make an RSA key pair for a node and its clients.

    \b
    Examples:
      mpush keygen                      the lines to paste
      mpush keygen --out keys           and PEM files, the private one mode 0600
    """
    key = RsaPrivateKey.generate(bits)
    probe = b"mpush"
    if key.decrypt(key.public.encrypt(probe)) != probe:
        raise click.ClickException("the new key does not decrypt what it encrypts")
    if out is not None:
        _write_files(out, key)
    click.echo("# for the node's configuration, the same on all nodes of a cluster:")
    click.echo(f'mp.security.private-key="{key.text()}"')
    click.echo(f'mp.security.public-key="{key.public.text()}"')
    click.echo("# for the clients (publicKey of the SDKs):")
    click.echo(key.public.text())


def _write_files(directory: Path, key: RsaPrivateKey) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, data, mode in (
            ("private.pem", key.pem(), 0o600),
            ("public.pem", key.public.pem(), 0o644),
        ):
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            click.echo(f"wrote {path}", err=True)
    except FileExistsError as error:
        raise click.ClickException(
            f"{error.filename} exists; it is not overwritten"
        ) from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
