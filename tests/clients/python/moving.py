"""The server as an archive: exported, downloaded, uploaded and imported again, as mmctl does."""

import io
import json
import time
import zipfile

from mattermostautodriver.exceptions import NotEnoughPermissions, ResourceNotFound

from cast import PATIENCE_S, refused, same


def finished(root, job):
    """The job once it has come to its end."""
    for _ in range(PATIENCE_S * 10):
        job = root.jobs.get_job(job["id"])
        if job["status"] not in ("pending", "in_progress"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job has not ended: {job}")


def run(scene):
    root = scene.root
    same("no imports yet", root.imports.list_imports(), [])
    refused("an export by anybody", NotEnoughPermissions, lambda: scene.ann.jobs.create_job("export_process"))
    refused("an import of a path", Exception,
            lambda: root.jobs.create_job("import_process", data={"import_file": "../../holdfast.toml"}))
    refused("a job of another type", Exception, lambda: root.jobs.create_job("ldap_sync"),
            "api.job.unable_to_create_job.incorrect_job_type")

    scene.ann.posts.create_post(scene.channel, f"moves {scene.mark}")
    export = finished(root, root.jobs.create_job("export_process", data={"include_attachments": "true"}))
    same("the export", export["status"], "success")
    name = f"{export['id']}_export.zip"
    same("list_exports", name in root.exports.list_exports())
    archive = root.exports.download_export(name).content
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        lines = [json.loads(line) for line in opened.read("import.jsonl").splitlines()]
    same("the first line", (lines[0]["type"], lines[0]["version"]), ("version", 1))
    said = [line["post"]["message"] for line in lines if line["type"] == "post"]
    same("what was said is in it", said.count(f"moves {scene.mark}"), 1)

    upload = root.client.post("/api/v4/uploads", options={"type": "import", "filename": "back.zip", "file_size": len(archive)})
    root.uploads.upload_data(upload["id"], file=("back.zip", archive, "application/zip"))
    same("list_imports", root.imports.list_imports(), [f"{upload['id']}_back.zip"])
    done = finished(root, root.jobs.create_job("import_process", data={"import_file": f"{upload['id']}_back.zip"}))
    same("the import", (done["status"], done["data"].get("error")), ("success", None))
    same("everything was here already", json.loads(done["data"]["report"])["added"], {})
    same("it is taken away then", root.imports.list_imports(), [])
    same("get_jobs_by_type", [job["id"] for job in root.jobs.get_jobs_by_type("import_process")], [done["id"]])
    same("get_jobs", {job["type"] for job in root.jobs.get_jobs()}, {"import_process", "export_process"})
    refused("an end that is over", Exception, lambda: root.jobs.cancel_job(done["id"]))

    broken = root.client.post("/api/v4/uploads", options={"type": "import", "filename": "x.zip", "file_size": 9})
    root.uploads.upload_data(broken["id"], file=("x.zip", b"not a zip", "application/zip"))
    failed = finished(root, root.jobs.create_job("import_process", data={"import_file": f"{broken['id']}_x.zip"}))
    same("what is no archive", failed["status"], "error")
    root.imports.delete_import(f"{broken['id']}_x.zip")
    same("delete_import", root.imports.list_imports(), [])
    root.exports.delete_export(name)
    refused("an export that was deleted", ResourceNotFound, lambda: root.exports.download_export(name))
