"""Apache Libcloud's driver EQUINIXMETAL against the emulator. Arguments: host, port, token, project."""
import sys

from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider

host, port, token, project = sys.argv[1:]
Driver = get_driver(Provider.EQUINIXMETAL)


class Connection(Driver.connectionCls):
    """Where it connects to, and nothing else."""

    def __init__(self, key, *args, **kwargs):
        super().__init__(key, secure=False, host=host, port=int(port))


Driver.connectionCls = Connection
driver = Driver(token, project=project)

assert [one.id for one in driver.projects] == [project]
(node,) = driver.list_nodes(ex_project_id=project)
assert node.name == "node-1" and node.private_ips == ["10.66.0.1"], node
made = driver.ex_request_address_reservation(project, location_id="da", address_family="public_ipv4", quantity=1)
listed = driver.ex_describe_all_addresses(ex_project_id=project)
assert [one["id"] for one in listed] == [made["id"]], listed
assigned = driver.ex_associate_address_with_node(node, made["address"] + "/32")
assert driver.ex_describe_all_addresses(ex_project_id=project, only_associated=True)
assert made["address"] in [one["address"] for one in driver.ex_list_ip_assignments_for_node(node)["ip_addresses"]]
driver.ex_disassociate_address(assigned["id"])
assert driver.ex_describe_address(made["id"])["assignments"] == []
driver.ex_disassociate_address(made["id"])
assert driver.ex_describe_all_addresses(ex_project_id=project) == []
(config,) = driver.ex_get_bgp_config(project)
assert config["status"] == "enabled"
session = driver.ex_create_bgp_session(node, "ipv4")
assert driver.ex_get_bgp_session(session["id"])["address_family"] == "ipv4"
assert [one["id"] for one in driver.ex_list_bgp_sessions(project)] == [session["id"]]
driver.ex_delete_bgp_session(session["id"])
assert driver.ex_list_bgp_sessions_for_node(node) == {"bgp_sessions": []}
print("ok")
