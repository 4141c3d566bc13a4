"""`python -m examples.knowledge_service [--port 8082]`: the web service."""

import argparse
import os

import uvicorn

from .web import Options, create_app

HOST = "127.0.0.1"
PORT = 8082


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.knowledge_service")
    parser.add_argument("--port", type=int, default=PORT)
    port = parser.parse_args().port
    try:
        options = Options.of(os.environ, f"http://{HOST}:{port}")
    except ValueError as error:
        parser.error(str(error))
    uvicorn.run(create_app(options), host=HOST, port=port, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
