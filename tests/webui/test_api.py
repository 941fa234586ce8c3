"""The endpoint for programs, through Gradio's client, on a real server."""

import socket
import zlib

import pytest
import torch

from deqir.errors import OptionError
from deqir.images import read_image, write_image

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui import serve
from deqir.webui.settings import Limits


def call(client, photo, settings, mask=None, reference=None):
    from gradio_client import handle_file

    files = [None if file is None else handle_file(file) for file in (mask, reference)]
    result, record = client.predict(handle_file(photo), settings, *files, api_name="/restore")
    return read_image(result), record


QUICK = {"steps": 3, "solver": "picard", "side": 48, "task": {"name": "sr", "scale": 2}}


def test_the_api_restores_and_its_settings_repeat_it(client, photo):
    image, record = call(client, photo, QUICK)
    assert image.shape == (3, 38, 42)
    assert record["result"]["status"] == "converged" and record["result"]["sweeps"] <= 3
    again, _ = call(client, photo, record["settings"])
    assert torch.equal(again, image)


def test_the_api_takes_a_mask(client, photo, tmp_path):
    mask = torch.ones(1, 19, 21)
    mask[:, 4:9, 5:12] = 0
    write_image(tmp_path / "mask.png", mask)
    task = {"name": "inpaint", "mask": "brush"}
    image, record = call(client, photo, {**QUICK, "task": task}, tmp_path / "mask.png")
    truth = read_image(photo)
    kept = mask.bool().expand(3, -1, -1)
    torch.testing.assert_close(image[kept], truth[kept], rtol=0, atol=1 / 255)
    assert (image - truth)[~kept].abs().max() > 0.02
    assert record["result"]["task_settings"]["mask"] == "brush"


def test_the_api_takes_a_reference(client, photo):
    settings = {**QUICK, "iterations": 2, "reference": "picture", "solver": "serial"}
    _, record = call(client, photo, settings, reference=photo)
    assert len(record["result"]["losses"]) == 2


def test_the_api_says_in_one_sentence_what_is_wrong(client, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(Exception, match=r"bad.png is not a readable PNG"):
        call(client, bad, QUICK)
    with pytest.raises(Exception, match="steps is 201; choose from 1 to 200"):
        call(client, photo, {**QUICK, "steps": 201})
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(1_100_000))
    with pytest.raises(Exception, match=r"(?i)size|413"):
        call(client, big, QUICK)


def test_the_server_itself_holds_what_a_program_asks_against_its_limits(client, photo, tmp_path):
    """The page's own controls do not matter here: the API is called with what no control offers."""
    bomb = tmp_path / "bomb.png"
    write_image(bomb, torch.zeros(1, 8, 8))
    data = bytearray(bomb.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    bomb.write_bytes(data)
    with pytest.raises(Exception, match="30000 x 30000 pixels, more than the 60000000 allowed"):
        call(client, bomb, QUICK)
    painted = {**QUICK, "task": {"name": "inpaint", "mask": "brush"}}
    with pytest.raises(Exception, match="30000 x 30000 pixels"):
        call(client, photo, painted, bomb)
    for changed, message in (
        ({"side": 129}, "side is 129; choose from 1 to 128"),
        ({"prior": "/etc"}, "prior is '/etc'"),
        ({"task": {"name": "inpaint", "mask": str(photo)}}, "choose one of"),
        ({"task": {"name": "deblur", "blur": str(photo)}}, "choose one of"),
    ):
        with pytest.raises(Exception, match=message):
            call(client, photo, {**QUICK, **changed})
    assert call(client, photo, QUICK)[1]["result"]["status"] == "converged"


def test_several_visitors_wait_for_each_other(server, client, photo):
    from gradio_client import Client, handle_file

    with_second = Client(server[0], verbose=False, analytics_enabled=False)
    jobs = [
        visitor.submit(handle_file(photo), {**QUICK, "seed": seed}, None, None, api_name="/restore")
        for seed, visitor in enumerate((client, with_second))
    ]
    results = [job.result(timeout=60) for job in jobs]
    with_second.close()
    assert [record["settings"]["seed"] for _, record in results] == [0, 1]
    assert not torch.equal(read_image(results[0][0]), read_image(results[1][0]))


def test_only_restoring_is_public(client):
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/restore"]


LIMITS = Limits(side=128, steps=10, file_bytes=100_000, photo_pixels=10_000)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("203.0.113.1", 8000)])
def test_an_address_that_cannot_be_used_is_one_sentence(host, port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(OptionError, match=f"{host}:{port} cannot be used .*; choose another --port or --host"):
            serve(host, port, {}, LIMITS, "cpu", print)
    with pytest.raises(OptionError, match="port is 70000; choose from 1 to 65535"):
        serve(host, 70_000, {}, LIMITS, "cpu", print)
