"""`python -m examples.knowledge_service [--port 8082]`: the web service."""

import argparse

import uvicorn

HOST = "127.0.0.1"
PORT = 8082


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.knowledge_service")
    parser.add_argument("--port", type=int, default=PORT)
    port = parser.parse_args().port
    uvicorn.run(
        "examples.knowledge_service.web:app",
        factory=True,
        host=HOST,
        port=port,
        log_level="warning",
        ws="none",
    )


if __name__ == "__main__":
    main()
