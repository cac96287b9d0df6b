"""Files: uploads at once and in parts, downloads, previews."""

import random

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions, ResourceNotFound

from cast import refused, same
from pictures import png


def run(scene):
    at_once(scene)
    in_parts(scene)


def at_once(scene):
    ann, ben, channel = scene.ann, scene.ben, scene.channel
    content = random.Random(scene.mark).randbytes(50_000)
    up = ann.files.upload_file(files=("Skizze größer.bin", content, "application/octet-stream"), channel_id=channel)
    info = up["file_infos"][0]
    same("upload_file", (info["name"], info["size"], up["client_ids"]), ("Skizze größer.bin", len(content), []))
    refused("get_file before it is posted", NotEnoughPermissions, lambda: ben.files.get_file(info["id"]))
    picture = ann.files.upload_file(files=("red.png", png(400), "image/png"), channel_id=channel)["file_infos"][0]
    same("upload_file of a picture", (picture["width"], picture["height"], picture["has_preview_image"]), (400, 400, True))
    post = ann.posts.create_post(channel, "two files", file_ids=[info["id"], picture["id"]])
    same("a post knows its files", [f["id"] for f in post["metadata"]["files"]], [info["id"], picture["id"]])
    same("get_file_infos_for_post", len(ben.posts.get_file_infos_for_post(post["id"])), 2)
    same("get_file", ben.files.get_file(info["id"]).content, content)
    same("get_file_info", ben.files.get_file_info(info["id"])["post_id"], post["id"])
    for name, look in (("get_file_thumbnail", ben.files.get_file_thumbnail), ("get_file_preview", ben.files.get_file_preview)):
        answer = look(picture["id"])
        same(name, (answer.headers["content-type"].split("/")[0], answer.content[:2] in (b"\xff\xd8", b"\x89P")), ("image", True))
    refused("get_file_preview of what is no picture", InvalidOrMissingParameters, lambda: ben.files.get_file_preview(info["id"]))
    refused("get_file of none", ResourceNotFound, lambda: ben.files.get_file("x" * 26))
    refused("get_file of a stranger", NotEnoughPermissions, lambda: scene.someone("mal").files.get_file(info["id"]))


def in_parts(scene):
    ann, ben = scene.ann, scene.ben
    content = random.Random(scene.mark + "2").randbytes(20_000)
    made = ann.uploads.create_upload(scene.channel, "part.bin", len(content))
    same("create_upload", (made["filename"], made["file_size"], made["file_offset"]), ("part.bin", len(content), 0))
    same("get_upload", ann.uploads.get_upload(made["id"])["user_id"], ann.client.userid)
    same("get_uploads_for_user", [u["id"] for u in ann.users.get_uploads_for_user("me")], [made["id"]])
    refused("get_upload of another", NotEnoughPermissions, lambda: ben.uploads.get_upload(made["id"]))
    info = ann.uploads.upload_data(made["id"], file=("part.bin", content, "application/octet-stream"))
    same("upload_data", (info["name"], info["size"]), ("part.bin", len(content)))
    ann.posts.create_post(scene.channel, "the parts", file_ids=[info["id"]])
    same("and it is whole", ben.files.get_file(info["id"]).content, content)
    same("get_uploads_for_user of none", ann.users.get_uploads_for_user("me"), [])
