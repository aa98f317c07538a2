#!/usr/bin/env python3
"""Draws the pictures of the README from what tokenwarden really writes. Needs chromium.

    CLICOLOR_FORCE=1 target/release/tokenwarden demo | docs/pictures/draw.py terminal.png 1180 760
    docs/pictures/draw.py mail.png 760 900 < mail.html
"""
import html, pathlib, re, subprocess, sys, tempfile

COLOURS = {"31": "#f07178", "33": "#e6c07b", "91": "#ff5c57", "1": "#ffffff"}
STYLE = "body{margin:0;background:#16181d;color:#d5d8df;font:13px/1.45 'DejaVu Sans Mono',monospace}pre{margin:0;padding:16px;white-space:pre}"


def terminal(text):
    """ANSI colours as HTML."""
    out = []
    for piece in re.split(r"(\x1b\[[0-9;]*m)", text):
        code = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if not code:
            out.append(html.escape(piece))
        elif code[1] in ("", "0"):
            out.append("</span>")
        else:
            out.append(f'<span style="color:{COLOURS.get(code[1], "inherit")}">')
    return f"<!doctype html><meta charset=utf-8><style>{STYLE}</style><pre>{''.join(out)}</pre>"


def main():
    name, width, height = sys.argv[1:4]
    text = sys.stdin.read()
    page = text if text.lstrip().startswith("<") else terminal(text)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "page.html")
        source.write_text(page)
        picture = pathlib.Path(__file__).parent / name
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=2000",
                        f"--user-data-dir={folder}/profile", f"--window-size={width},{height}",
                        f"--screenshot={picture}", source.as_uri()], check=True, stderr=subprocess.DEVNULL)


main()
