#!/usr/bin/env bash
# What az and azcopy do with the server, as a person types it; run by main.rs in an empty folder, with the variables of
# env.sh, and `az`, `azcopy` and `vhd` in the path. Everything is compared with what was written.
set -euo pipefail
root=$AZURE_RESOURCE_MANAGER
export AZCOPY_LOG_LOCATION=$PWD/azcopy AZCOPY_JOB_PLAN_LOCATION=$PWD/azcopy
step() { echo "-- $*"; }

step login
az cloud register -n vhdkit --endpoint-resource-manager "$root"
az cloud set -n vhdkit
az login --service-principal -u "$AZURE_CLIENT_ID" -p "$AZURE_CLIENT_SECRET" --tenant "$AZURE_TENANT_ID" -o none

step "az storage"
vhd create disk.vhd --size 16M -O fixed
printf 'monday' | dd of=disk.vhd bs=1 seek=5000000 conv=notrunc status=none
az storage container create -n tools -o none
az storage blob upload -c tools -n disk.vhd -f disk.vhd -t page -o none
az storage blob snapshot -c tools -n disk.vhd --query snapshot -o tsv >time
az storage blob download -c tools -n disk.vhd -f down.vhd -o none
cmp disk.vhd down.vhd
[[ $(az storage blob list -c tools --include s --query 'length(@)' -o tsv) == 2 ]]

step azcopy
expiry=$(date -u -d '+1 hour' +%Y-%m-%dT%H:%MZ)
sas=$(az storage container generate-sas -n tools --permissions rwdlac --expiry "$expiry" -o tsv)
blob=$AZURE_STORAGE_SERVICE_ENDPOINT/tools
azcopy copy disk.vhd "$blob/copied.vhd?$sas" --from-to LocalBlob --blob-type PageBlob --skip-version-check >azcopy.out
azcopy copy "$blob/copied.vhd?$sas" again.vhd --from-to BlobLocal --skip-version-check >>azcopy.out
cmp disk.vhd again.vhd
if azcopy copy disk.vhd "$blob/no.vhd?${sas%?????}" --from-to LocalBlob --blob-type PageBlob --skip-version-check >>azcopy.out; then
    echo "a wrong signature was taken" >&2
    exit 1
fi

step "a disk, uploaded"
az disk create -g tools -n web -l eastus --upload-type Upload --upload-size-bytes "$(stat -c %s disk.vhd)" --sku Standard_LRS -o none
write=$(az disk grant-access -g tools -n web --access-level Write --duration-in-seconds 3600 --query accessSAS -o tsv)
azcopy copy disk.vhd "$write" --from-to LocalBlob --blob-type PageBlob --skip-version-check >>azcopy.out
az disk revoke-access -g tools -n web
id=$(az disk show -g tools -n web --query id -o tsv)
[[ $(az disk show -g tools -n web --query diskState -o tsv) == Unattached ]]

step templates
cat >snapshot.json <<'JSON'
{
  // Comments are allowed here.
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "contentVersion": "1.0.0.0",
  "parameters": {
    "diskName": { "type": "string", "defaultValue": "web" },
    "diskResourceId": { "defaultValue": "<your_managed_disk_resource_ID>", "type": "String" }
  },
  "variables": { "name": "[concat(parameters('diskName'), '_snapshot1')]" },
  "resources": [
    {
      "type": "Microsoft.Compute/snapshots",
      "name": "[variables('name')]",
      "location": "[resourceGroup().location]",
      "apiVersion": "2020-12-01",
      "scale": null,
      "properties": {
        "creationData": { "createOption": "Copy", "sourceResourceId": "[parameters('diskResourceId')]" },
        "incremental": true
      },
      "dependsOn": []
    },
    {
      "type": "Microsoft.Compute/disks",
      "name": "from_template",
      "location": "[resourceGroup().location]",
      "apiVersion": "2019-03-01",
      "sku": { "name": "Standard_LRS" },
      "properties": {
        "creationData": { "createOption": "Copy", "sourceResourceId": "[resourceId('Microsoft.Compute/snapshots', variables('name'))]" }
      },
      "dependsOn": ["[resourceId('Microsoft.Compute/snapshots', variables('name'))]"]
    }
  ]
}
JSON
az deployment group create -g tools --template-file snapshot.json --parameters "diskResourceId=$id" \
    --query properties.provisioningState -o tsv | grep -qx Succeeded
read=$(az disk grant-access -g tools -n from_template --duration-in-seconds 60 --query accessSAS -o tsv)
azcopy copy "$read" restored.vhd --from-to BlobLocal --skip-version-check >>azcopy.out
az disk revoke-access -g tools -n from_template
cmp <(head -c 16M disk.vhd) <(head -c 16M restored.vhd)
if az deployment group create -g tools --template-file snapshot.json --parameters wrong=1 -o none 2>error; then exit 1; fi
grep -q "template parameter 'wrong'" error

step "groups, machines, errors"
az group create -n other -l westus -o none
[[ $(az group exists -n other) == true && $(az group exists -n nothing) == false ]]
az disk create -g tools -n vm1_OsDisk_1 -l eastus --size-gb 1 -o none
[[ $(az vm show -g tools -n vm1 --query storageProfile.osDisk.managedDisk.id -o tsv) == */disks/vm1_OsDisk_1 ]]
status=0
az snapshot show -g tools -n nothing 2>error || status=$?
[[ $status == 3 ]] && grep -q ResourceNotFound error
export IDENTITY_ENDPOINT=$root/msi/token IDENTITY_HEADER=$VHD_AZURE_IDENTITY_HEADER
az login --identity -o none
az disk list -g tools --query '[].name' -o tsv | sort >names
printf 'from_template\nvm1_OsDisk_1\nweb\n' | cmp - names
echo "all as expected"
