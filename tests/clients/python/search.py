"""Search for posts and files, with the grammar of Mattermost."""

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions

from cast import refused, same


def run(scene):
    ann, ben, team, channel = scene.ann, scene.ben, scene.team, scene.channel
    word = f"heliport{scene.mark}"
    mine = ann.posts.create_post(channel, f"The {word} is closed #weather{scene.mark}")["id"]
    his = ben.posts.create_post(channel, f"Then the old {word} is open")["id"]
    find = lambda terms, either=False: set(ann.posts.search_posts(team, terms, either)["order"])
    same("search_posts", find(word), {mine, his})
    same("search_posts from", find(f"{word} from:{ben.client.username}"), {his})
    same("search_posts in", find(f"{word} in:ops-{scene.mark}"), {mine, his})
    same("search_posts without", find(f"{word} -closed"), {his})
    same("search_posts for a phrase", find(f'"old {word}"'), {his})
    same("search_posts for a hashtag", find(f"#weather{scene.mark}"), {mine})
    same("search_posts for the start of a word", find(f"heliport{scene.mark[:4]}*"), {mine, his})
    same("search_posts for either word", find("closed old", True) & {mine, his}, {mine, his})
    same("search_posts finds nothing", ann.posts.search_posts(team, "zzzzzzzz", False)["posts"], {})
    everywhere = ann.posts.search_posts_in_all_teams(word, False)
    same("search_posts_in_all_teams", set(everywhere["order"]), {mine, his})
    eve = scene.someone("outsider")
    same("search_posts_in_all_teams finds only what one may read", eve.posts.search_posts_in_all_teams(word, False)["order"], [])
    refused("search_posts of a stranger", NotEnoughPermissions, lambda: eve.posts.search_posts(team, word, False))

    file = ann.files.upload_file(files=(f"{word}.txt", b"runway", "text/plain"), channel_id=channel)["file_infos"][0]["id"]
    ann.posts.create_post(channel, "its plan", file_ids=[file])
    # The method sends a form, as the description has it; Mattermost takes JSON only.
    refused("search_files as a form", InvalidOrMissingParameters, lambda: ben.teams.search_files(team, word, False))
    search = lambda where, terms: ben.client.post(f"/api/v4{where}/files/search", {"terms": terms, "is_or_search": False})
    same("files of a team", search(f"/teams/{team}", word)["order"], [file])
    same("files of all teams", search("", word)["order"], [file])
    same("files by their kind", search(f"/teams/{team}", f"ext:txt {word}")["order"], [file])
    same("no files", search(f"/teams/{team}", "zzzzzzzz")["order"], [])
