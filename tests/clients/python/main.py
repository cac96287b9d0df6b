"""mattermostautodriver, unchanged, over every endpoint of ../sets.txt that it has a method for, against a running edge.

tests/system/clients.rs starts the node, calls this with its address and administrator (HOLDFAST_EDGE_URL, _ADMIN and
_PASSWORD), and has conformance.py look at the traffic, which is kept in the file that HOLDFAST_TRAFFIC names. Programs of
127.0.0.1 must be allowed as integrations there.
"""

import random
from dataclasses import dataclass

from mattermostautodriver import TypedDriver

import accounts
import administration
import channels
import drafts
import emoji
import files
import integrations
import marks
import moving
import offers
import people
import posts
import search
import server
import teams
import threads
from cast import PASSWORD, administrator, signed_in


@dataclass
class Scene:
    """A team with a channel, its two members and the administrator, who is in both as well."""

    mark: str
    root: TypedDriver
    ann: TypedDriver
    ben: TypedDriver
    team: str
    channel: str

    def someone(self, name):
        """One more user, signed in, who is in no team yet."""
        user = self.root.users.create_user(
            email=f"{name}-{self.mark}@people.example", username=f"{name}-{self.mark}", password=PASSWORD)
        return signed_in(user["username"])


def set_up():
    mark = f"{random.randrange(16**8):08x}"
    root = administrator()
    scene = Scene(mark, root, None, None, None, None)
    scene.ann, scene.ben = scene.someone("ann"), scene.someone("ben")
    scene.team = root.teams.create_team(name=f"py-{mark}", display_name="Python Team", type="O")["id"]
    for driver in (scene.ann, scene.ben):
        root.teams.add_team_member(scene.team, user_id=driver.client.userid)
    scene.channel = scene.ann.channels.create_channel(
        team_id=scene.team, name=f"ops-{mark}", display_name="Operations", type="O", purpose="what is done")["id"]
    for driver in (scene.ben, root):
        scene.ann.channels.add_channel_member(scene.channel, user_id=driver.client.userid)
    return scene


def main():
    offers.keep()
    scene = set_up()
    for area in (server, people, teams, channels, posts, threads, drafts, files, search, emoji, marks, integrations,
                 administration, moving, accounts):
        print(f"# {area.__name__}", flush=True)
        area.run(scene)


if __name__ == "__main__":
    main()
