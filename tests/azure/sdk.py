"""What the SDKs of the cloud get from the server: every answer is compared with what was written. Run by main.rs."""
import os
import sys
from datetime import datetime, timedelta, timezone

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.storage.blob import BlobClient, BlobServiceClient, generate_account_sas, generate_blob_sas

E = os.environ
root = E["AZURE_RESOURCE_MANAGER"]
account, key = E["AZURE_STORAGE_ACCOUNT"], E["AZURE_STORAGE_KEY"]


def refused(code, call, *args, **more):
    try:
        call(*args, **more)
    except HttpResponseError as e:
        found = e.error_code if hasattr(e, "error_code") and e.error_code else e.error.code
        assert found == code, (found, code)
    else:
        raise AssertionError(f"{code} expected")


def ranges(pages):
    return [(p["start"], p["end"]) for p in pages]


def storage():
    service = BlobServiceClient.from_connection_string(E["AZURE_STORAGE_CONNECTION_STRING"])
    c = service.get_container_client("sdk")
    c.create_container(metadata={"made": "here"})
    refused("ContainerAlreadyExists", c.create_container)
    b = c.get_blob_client("folder/a blob.vhd")
    b.create_page_blob(8 << 20, sequence_number=3, metadata={"a": "b"})
    b.upload_page(b"x" * 4096, offset=0, length=4096, validate_content=True)
    b.upload_page(b"y" * 8192, offset=1 << 20, length=8192)
    s1 = b.create_snapshot(metadata={"name": "s1"})["snapshot"]
    b.clear_page(offset=0, length=512)
    b.upload_page(b"z" * 512, offset=2 << 20, length=512)
    # Written anew with the same bytes, and so changed.
    b.upload_page(b"y" * 512, offset=1 << 20, length=512)
    s2 = b.create_snapshot()["snapshot"]
    b.upload_page(b"w" * 512, offset=4 << 20, length=512)
    M = 1 << 20
    pages, cleared = b.get_page_ranges(previous_snapshot_diff=s1)
    assert ranges(pages) == [(M, M + 511), (2 * M, 2 * M + 511), (4 * M, 4 * M + 511)], pages
    assert ranges(cleared) == [(0, 511)], cleared
    at2 = c.get_blob_client(b.blob_name, snapshot=s2)
    listed = [(p.start, p.end, p.cleared) for p in at2.list_page_ranges(previous_snapshot=s1, results_per_page=1)]
    assert listed == [(0, 511, True), (M, M + 511, False), (2 * M, 2 * M + 511, False)], listed
    listed = [(p.start, p.end) for p in b.list_page_ranges(results_per_page=2)]
    assert listed == [(512, 4095), (M, M + 511), (M + 512, M + 8191), (2 * M, 2 * M + 511), (4 * M, 4 * M + 511)] or \
        listed == [(512, 4095), (M, M + 8191), (2 * M, 2 * M + 511), (4 * M, 4 * M + 511)], listed
    at1 = c.get_blob_client(b.blob_name, snapshot=s1)
    whole = at1.download_blob().readall()
    assert whole[:4096] == b"x" * 4096 and whole[M:M + 8192] == b"y" * 8192 and len(whole) == 8 * M
    assert not any(whole[4096:M]) and not any(whole[M + 8192:])
    assert at1.get_blob_properties().metadata == {"name": "s1"}
    refused("InvalidQueryParameterValue", at1.get_page_ranges, previous_snapshot_diff=s2)
    refused("BlobNotFound", b.get_page_ranges, previous_snapshot_diff="2020-01-01T00:00:00.0000000Z")
    refused("SequenceNumberConditionNotMet", b.upload_page, b"q" * 512, offset=0, length=512, if_sequence_number_lt=3)
    b.set_sequence_number("max", 9)
    lease = b.acquire_lease(15)
    refused("LeaseIdMissing", b.upload_page, b"q" * 512, offset=0, length=512)
    refused("LeaseAlreadyPresent", b.acquire_lease, 15)
    b.upload_page(b"q" * 512, offset=0, length=512, lease=lease)
    lease.renew()
    lease.release()
    b.resize_blob(9 << 20)
    about = b.get_blob_properties()
    assert (about.size, about.page_blob_sequence_number, about.metadata) == (9 << 20, 9, {"a": "b"})
    refused("InvalidPageRange", b.upload_page, b"q" * 512, offset=16 << 20, length=512)
    refused("ConditionNotMet", b.upload_page, b"q" * 512, offset=0, length=512, etag='"0x1"', match_condition=_same())
    d = c.get_blob_client("restored.vhd")
    d.start_copy_from_url(b.url + "?snapshot=" + s1)
    assert d.download_blob().readall() == whole and d.get_blob_properties().copy.status == "success"
    f = c.get_blob_client("from-url.vhd")
    f.create_page_blob(1 << 20)
    sas = generate_blob_sas(account, "sdk", b.blob_name, account_key=key, permission="r",
                            expiry=datetime.now(timezone.utc) + timedelta(hours=1))
    f.upload_pages_from_url(b.url + "?" + sas, offset=0, length=512, source_offset=2 << 20)
    assert f.download_blob(offset=0, length=512).readall() == b"z" * 512
    # A blob that was put anew has no changes since a snapshot of the one before.
    at = f.create_snapshot()["snapshot"]
    f.create_page_blob(1 << 20)
    refused("BlobOverwritten", f.get_page_ranges, previous_snapshot_diff=at)
    for per_page in (1, 2, 3, 50):
        found = [(x.name, x.snapshot) for page in c.list_blobs(include=["snapshots", "metadata"], results_per_page=per_page).by_page()
                 for x in page]
        assert len(found) == len(set(found)) == 6, (per_page, found)
    assert [x.name for x in c.walk_blobs()] == ["folder/", "from-url.vhd", "restored.vhd"]
    # Signatures are checked: letters, resource, time.
    read = BlobClient.from_blob_url(b.url + "?" + sas)
    assert read.get_blob_properties().size == 9 << 20
    refused("AuthorizationPermissionMismatch", read.upload_page, b"q" * 512, offset=0, length=512)
    refused("AuthenticationFailed", BlobClient.from_blob_url(d.url + "?" + sas).get_page_ranges)
    old = generate_blob_sas(account, "sdk", b.blob_name, account_key=key, permission="r",
                            expiry=datetime.now(timezone.utc) - timedelta(hours=1))
    refused("AuthenticationFailed", BlobClient.from_blob_url(b.url + "?" + old).get_page_ranges)
    every = generate_account_sas(account, key, resource_types="co", permission="rl",
                                 expiry=datetime.now(timezone.utc) + timedelta(hours=1))
    assert len(list(BlobServiceClient(E["AZURE_STORAGE_SERVICE_ENDPOINT"], credential=every)
                    .get_container_client("sdk").list_blobs())) == 3
    wrong = BlobServiceClient(E["AZURE_STORAGE_SERVICE_ENDPOINT"], credential={"account_name": account, "account_key": key[:-8] + "AAAAAAA="})
    refused("AuthenticationFailed", wrong.get_container_client("sdk").get_container_properties)
    token = ClientSecretCredential(E["AZURE_TENANT_ID"], E["AZURE_CLIENT_ID"], E["AZURE_CLIENT_SECRET"],
                                   authority=root, disable_instance_discovery=True)
    wrong = ClientSecretCredential(E["AZURE_TENANT_ID"], E["AZURE_CLIENT_ID"], "wrong", authority=root,
                                   disable_instance_discovery=True)
    try:
        wrong.get_token("https://storage.azure.com/.default")
    except ClientAuthenticationError:
        pass
    else:
        raise AssertionError("a wrong password was taken")
    by_token = BlobServiceClient(E["AZURE_STORAGE_SERVICE_ENDPOINT"], credential=token)
    assert [x.name for x in by_token.list_containers()][-1] == "sdk"
    refused("SnapshotsPresent", b.delete_blob)
    at1.delete_blob()
    b.delete_blob(delete_snapshots="include")
    return token


def _same():
    from azure.core import MatchConditions
    return MatchConditions.IfNotModified


def _resource(location, properties):
    return {"location": location, "properties": properties}


def disks(token):
    client = ComputeManagementClient(token, E["AZURE_SUBSCRIPTION_ID"], base_url=root,
                                     credential_scopes=[root + "/.default"])
    group = "sdk-group"
    size = 4 << 20
    client.disks.begin_create_or_update(group, "data", _resource("eastus", {
        "creationData": {"createOption": "Upload", "uploadSizeBytes": size + 512}})).result()
    disk = client.disks.get(group, "data")
    assert (disk.properties.disk_state, disk.properties.disk_size_bytes) == ("ReadyToUpload", size)

    def write(*changes):
        sas = client.disks.begin_grant_access(group, "data", {"access": "Write", "durationInSeconds": 3600}).result().access_sas
        blob = BlobClient.from_blob_url(sas)
        for offset, data in changes:
            if data:
                blob.upload_page(data, offset=offset, length=len(data))
            else:
                blob.clear_page(offset=offset, length=512)
        client.disks.begin_revoke_access(group, "data").result()
        refused("AuthenticationFailed", blob.get_blob_properties)

    def snap(name):
        client.snapshots.begin_create_or_update(group, name, _resource("eastus", {
            "incremental": True, "creationData": {"createOption": "Copy", "sourceResourceId": disk.id}})).result()
        return client.snapshots.begin_grant_access(group, name, {"access": "Read", "durationInSeconds": 3600}).result().access_sas

    write((0, b"a" * 4096), (1 << 20, b"b" * 1024))
    one = snap("one")
    write((8192, b"c" * 512), (512, None))
    two = snap("two")
    blob = BlobClient.from_blob_url(two)
    pages, cleared = blob.get_page_range_diff_for_managed_disk(previous_snapshot_url=one)
    assert (ranges(pages), ranges(cleared)) == ([(8192, 8703)], [(512, 1023)]), (pages, cleared)
    whole = blob.download_blob().readall()
    assert len(whole) == size + 512 and whole[-512:-504] == b"conectix"
    assert whole[:8704] == b"a" * 512 + bytes(512) + b"a" * 3072 + bytes(4096) + b"c" * 512
    before = BlobClient.from_blob_url(one).download_blob().readall()
    assert before[:4096] == b"a" * 4096 and not any(before[8192:8704])
    refused("CopySourceCannotBeIncrementalCopyBlob", _copy_from, two)
    # Five at a time, of one disk.
    for n in range(3):
        snap(f"more{n}")
    client.snapshots.begin_create_or_update(group, "sixth", _resource("eastus", {
        "incremental": True, "creationData": {"createOption": "Copy", "sourceResourceId": disk.id}})).result()
    refused("OperationNotAllowed", lambda: client.snapshots.begin_grant_access(
        group, "sixth", {"access": "Read", "durationInSeconds": 60}).result())
    refused("OperationNotAllowed", lambda: client.snapshots.begin_delete(group, "one").result())
    names = [s.name for s in client.snapshots.list_by_resource_group(group)]
    assert names == ["more0", "more1", "more2", "one", "sixth", "two"], names
    assert len([s for s in client.snapshots.list() if s.properties.incremental_snapshot_family_id]) >= 6
    for name in names:
        if name != "sixth":
            client.snapshots.begin_revoke_access(group, name).result()
    # In another region the family is the same, and so are the changes.
    for name in ("one", "two"):
        client.snapshots.begin_create_or_update(group, name + "-west", _resource("westus", {
            "incremental": True, "creationData": {
                "createOption": "CopyStart", "sourceResourceId": client.snapshots.get(group, name).id}})).result()
        while client.snapshots.get(group, name + "-west").properties.completion_percent < 100:
            pass
    west = [client.snapshots.begin_grant_access(group, n, {"access": "Read", "durationInSeconds": 60}).result().access_sas
            for n in ("one-west", "two-west")]
    pages, cleared = BlobClient.from_blob_url(west[1]).get_page_range_diff_for_managed_disk(previous_snapshot_url=west[0])
    assert (ranges(pages), ranges(cleared)) == ([(8192, 8703)], [(512, 1023)])
    assert BlobClient.from_blob_url(west[1]).download_blob().readall() == whole
    client.disks.begin_create_or_update(group, "restored", _resource("eastus", {"creationData": {
        "createOption": "Copy", "sourceResourceId": client.snapshots.get(group, "two").id}})).result()
    sas = client.disks.begin_grant_access(group, "restored", {"access": "Read", "durationInSeconds": 60}).result().access_sas
    assert BlobClient.from_blob_url(sas).download_blob().readall()[:size] == whole[:size]
    refused("BlobOverwritten", BlobClient.from_blob_url(west[1]).get_page_range_diff_for_managed_disk, previous_snapshot_url=sas)
    refused("ResourceNotFound", client.disks.get, group, "nothing")
    client.snapshots.begin_update(group, "two", {"tags": {"a": "b"}}).result()
    assert client.snapshots.get(group, "two").tags == {"a": "b"}
    client.snapshots.begin_delete(group, "one").result()
    sas = client.snapshots.begin_grant_access(group, "two", {"access": "Read", "durationInSeconds": 60}).result().access_sas
    assert BlobClient.from_blob_url(sas).download_blob().readall() == whole
    client.snapshots.begin_revoke_access(group, "two").result()


def _copy_from(sas):
    service = BlobServiceClient.from_connection_string(E["AZURE_STORAGE_CONNECTION_STRING"])
    target = service.get_blob_client("sdk", "from-disk.vhd")
    target.create_page_blob(4 << 20)
    target.upload_pages_from_url(sas, offset=0, length=512, source_offset=0)


disks(storage())
print("all as expected")
sys.exit(0)
