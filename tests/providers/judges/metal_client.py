"""The vendor's generated client against the emulator: claim, find, edit, release, BGP. Arguments: URL, token, project, device."""
import sys

import equinix_metal
from equinix_metal import rest
from equinix_metal.api import bgp_api, devices_api, ip_addresses_api

url, token, project, device = sys.argv[1:]
configuration = equinix_metal.Configuration(host=url, api_key={"x_auth_token": token})
with equinix_metal.ApiClient(configuration) as client:
    addresses = ip_addresses_api.IPAddressesApi(client)
    bgp = bgp_api.BGPApi(client)
    devices = devices_api.DevicesApi(client)

    wanted = equinix_metal.IPReservationRequestInput(type="public_ipv4", quantity=1, metro="da", tags=["owner=python"])
    made = addresses.request_ip_reservation(
        id=project, request_ip_reservation_request=equinix_metal.RequestIPReservationRequest(wanted)
    ).actual_instance
    assert made.state == "created" and made.tags == ["owner=python"], made
    listed = [one.actual_instance for one in addresses.find_ip_reservations(id=project, types=["public_ipv4"]).ip_addresses]
    assert [one.id for one in listed] == [made.id], listed
    found = addresses.find_ip_address_by_id(id=made.id).actual_instance
    assert found.address == made.address, found
    changed = addresses.update_ip_address(
        id=made.id, ip_assignment_update_input=equinix_metal.IPAssignmentUpdateInput(tags=["owner=other"])
    ).actual_instance
    assert changed.tags == ["owner=other"], changed
    assert addresses.find_ip_availabilities(id=made.id, cidr="32").available == [made.address + "/32"]
    addresses.delete_ip_address(id=made.id)
    try:
        addresses.find_ip_address_by_id(id=made.id)
        raise SystemExit("a released address is still there")
    except equinix_metal.exceptions.NotFoundException:
        pass

    assert bgp.find_bgp_config_by_project(id=project).status is None
    bgp.request_bgp_config(
        id=project,
        bgp_config_request_input=equinix_metal.BgpConfigRequestInput(deployment_type="local", asn=65000),
    )
    config = bgp.find_bgp_config_by_project(id=project)
    assert (config.status, config.max_prefix) == ("enabled", 10), config
    session = devices.create_bgp_session(id=device, bgp_session_input=equinix_metal.BGPSessionInput(address_family="ipv4"))
    neighbours = devices.get_bgp_neighbor_data(id=device).bgp_neighbors
    assert neighbours[0].peer_ips == ["169.254.255.1", "169.254.255.2"], neighbours
    assert [one.id for one in bgp.find_project_bgp_sessions(id=project).bgp_sessions] == [session.id]
    assert devices.find_device_by_id(id=device).hostname == "node-1"
    assert [one.id for one in devices.find_project_devices(id=project).devices] == [device]
    bgp.delete_bgp_session(id=session.id)
print("ok")
