"""Run a Python script in a copy of the server of fork_server.py, or directly where that is not possible.

    python -IS fork_client.py FOLDER SCRIPT [ARGUMENT ...]

FOLDER holds a socket for each script and `--name` that the server runs. All is as with `python SCRIPT`: the
streams, the exit status, and signals, which are passed on. It imports little, so that it takes 20 ms.
"""

import marshal
import os
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

NUMBER_BYTES = 8  # of each number that is sent
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def name_socket(arguments: list[str]) -> str:
    """Return the file name of the socket for a command.

    Args:
        arguments: The script's path and its arguments.
    """
    name = arguments[arguments.index("--name") + 1] if "--name" in arguments[:-1] else ""
    return f"{arguments[0].rpartition('/')[2]} {name}".strip()


def connect(folder: str, arguments: list[str]) -> tuple[socket.socket, int] | None:
    """Ask the server to run a script.

    Args:
        folder: The folder of the sockets.
        arguments: The script's path and its arguments.

    Returns:
        The connection, and the number of the process that runs the script; None if there is no server for it,
        or it declines.
    """
    connection = socket.socket(socket.AF_UNIX)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # end without a traceback while waiting
    try:
        directory = os.open(folder, os.O_PATH)
        # A socket's path may have 107 bytes, so that it is given relative to a folder's descriptor.
        connection.connect(f"/proc/self/fd/{directory}/{name_socket(arguments)}")
        os.close(directory)
        folder_now = os.getcwdb()  # noqa: PTH109  pathlib takes as long to import as all the rest
        request = (folder_now, [os.fsencode(part) for part in arguments], dict(os.environb))
        content = marshal.dumps(request)
        socket.send_fds(connection, [len(content).to_bytes(NUMBER_BYTES)], [0, 1, 2])
        connection.sendall(content)
    except OSError:
        return None
    process = receive_number(connection)  # 0 where the server declines
    return (connection, process) if process else None


def receive_number(connection: socket.socket) -> int | None:
    """Return the next number that the server sends; None if it has ended.

    Args:
        connection: To the server.
    """
    try:
        content = connection.recv(NUMBER_BYTES, socket.MSG_WAITALL)
    except OSError:
        return None
    return int.from_bytes(content) if content else None


def await_end(connection: socket.socket, process: int) -> NoReturn:
    """Wait until the script has ended, and end in the same way.

    Args:
        connection: To the server.
        process: The number of the process that runs the script, to which signals are passed on.
    """

    def pass_on(number: int, _: FrameType | None) -> None:
        try:  # noqa: SIM105  contextlib would be one more import
            os.kill(process, number)
        except ProcessLookupError:  # it has just ended
            pass

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    status = receive_number(connection)
    if status is None:
        sys.exit("error: the process that imports torch for all jobs ended, and this job with it; run again")
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if code < 0:  # which bash would report with the command line of this program
        print(f"{signal.strsignal(-code)}: python {' '.join(sys.argv[2:4])}", file=sys.stderr)
        code = 128 - code
    sys.exit(code)


def main() -> NoReturn:
    """Run the script of the command line."""
    folder, *arguments = sys.argv[1:]
    running = connect(folder, arguments)
    if running is None:
        os.execvp("python", ["python", *arguments])
    await_end(*running)


if __name__ == "__main__":
    main()
