"""A real SMTP server that asks for TLS and a password and keeps each mail as a file.

While there is a file "hold" in the folder, it keeps mails and does not answer. While there is a file "reject", it
rejects mails with the reply that the file holds.

Arguments: port, folder for mails, certificate, key, tls ("starttls" or "smtps"), user, password.
"""

import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Keeper:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.count = 0

    async def handle_DATA(self, server, session, envelope):
        reject = self.folder / "reject"
        if reject.exists():
            return reject.read_text()
        self.count += 1
        head = f"X-Tls: {server.transport.get_extra_info('ssl_object') is not None}\r\nX-Auth: {session.authenticated}\r\n"
        head += f"X-From: {envelope.mail_from}\r\nX-To: {','.join(envelope.rcpt_tos)}\r\n"
        draft = self.folder / f"{self.count}.part"
        draft.write_bytes(head.encode() + envelope.content)
        draft.rename(self.folder / f"{self.count}.eml")
        # It has the mail, and does not say so yet.
        while (self.folder / "hold").exists():
            await asyncio.sleep(0.02)
        return "250 kept"


async def main(port, folder, certificate, key, tls, user, password):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    keeper = Keeper(folder)

    def authenticate(server, session, envelope, mechanism, login):
        right = login.login == user.encode() and login.password == password.encode()
        return AuthResult(success=right, handled=False)

    def protocol():
        starttls = tls == "starttls"
        return SMTP(
            keeper,
            hostname="localhost",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            authenticator=authenticate,
            auth_required=True,
            auth_require_tls=starttls,
        )

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", int(port), ssl=None if tls == "starttls" else context
    )
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
